"""Delegation inside vLLM: the base drafts, the reasoner scores and takes over.

vLLM's speculative decoding with a draft model is delegation but for the rule by which a draft is accepted,
so that rule is what this package brings (`worker`), with the policy of each request (`wire`).
"""
