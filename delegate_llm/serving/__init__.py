"""An OpenAI-compatible server that delegates: vLLM's own, with a plugin.

`launch` starts it, `plugin` lives in it: policies come in with requests, decisions go out with answers.
"""
