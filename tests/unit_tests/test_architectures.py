"""Models whose layers are unlike Llama's: every schedule says what the models say without a cache."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import transformers
from models import SIZE, random_model, tokenizer

from delegate_llm import DelegationPolicy, LoadError, Pair, load_pair

PROMPTS = ["the cat. ", "a", "12 eggs and 3 hens\n"]
POLICY = DelegationPolicy(threshold=2.0)
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 16,
}
SMALL: dict[str, dict[str, Any]] = {
    "Falcon": {"num_hidden_layers": 2, "num_attention_heads": 4},
    "Falcon with alibi": {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "alibi": True,
        "multi_query": False,
    },
    "GPTJ": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "n_positions": 128},
    "GPTNeo": {
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 6,
        "max_position_embeddings": 128,
    },
    "XGLM": {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4},
    "Doge": {},
    "Phi3": {
        "original_max_position_embeddings": 16,
        "rope_parameters": LONGROPE,
        "pad_token_id": 0,
    },
    "Llama": {"attn_implementation": "eager"},
}
COMMON = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
OWN_NAMES = ("GPTJ", "GPTNeo", "XGLM", "Falcon", "Falcon with alibi")


def model_of(kind: str, seed: int) -> Any:
    """A sharp random model of a kind, in float32."""
    name = kind.split(maxsplit=1)[0]
    common = {"hidden_size": 32} if name in {"GPTNeo", "Falcon"} else {} if kind in OWN_NAMES else COMMON
    torch.manual_seed(seed)
    config = getattr(transformers, f"{name}Config")(
        vocab_size=SIZE, bos_token_id=0, **{**common, **SMALL[kind]}
    )
    model = getattr(transformers, {"GPTJ": "GPTJForCausalLM"}.get(name, f"{name}ForCausalLM"))(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
    model.generation_config.eos_token_id = SIZE - 1
    return model


def decided(generation: Any) -> list[tuple[Any, ...]]:
    return [
        (each.token_id, each.asked, each.takeover, each.base_token_id) for each in generation.trace.decisions
    ]


@pytest.mark.parametrize("kind", SMALL)
def test_drafts_batches_and_lockstep_agree(kind: str) -> None:
    base, reasoner = model_of(kind, 1), model_of(kind, 2)
    pair = load_pair((base, tokenizer()), (reasoner, tokenizer()))
    settings: dict[str, Any] = {"policy": POLICY, "max_tokens": 24, "trace": "full", "ignore_eos": True}

    reference = [decided(pair.generate(each, schedule="lockstep", **settings)) for each in PROMPTS]
    assert any(each[2] for answer in reference for each in answer)
    assert [decided(pair.generate(each, **settings)) for each in PROMPTS] == reference
    assert [decided(each) for each in pair.generate_batch(PROMPTS, **settings)] == reference

    ids = list(tokenizer()(PROMPTS[2]).input_ids)
    alone = pair.generate(ids, policy={"budget": 0}, max_tokens=24, ignore_eos=True).token_ids
    for token in alone:
        with torch.no_grad():
            said = base(torch.tensor([ids]), use_cache=False).logits[0, -1, :SIZE]
        assert int(said.argmax()) == token
        ids.append(token)


def test_one_reads_what_the_other_has_written_across_a_border_of_lengths() -> None:
    """A text is scored as it would have been written, long rotary factors and short ones."""
    models = [model_of("Phi3", seed) for seed in (1, 2)]
    pair = load_pair(*[(each, tokenizer()) for each in models])
    written = pair.generate(
        PROMPTS[0], policy={"threshold": 1e9}, max_tokens=24, trace="full", ignore_eos=True
    )
    read = pair.score(PROMPTS[0], written.token_ids)
    assert [each.base_entropy for each in read.decisions] == pytest.approx(
        [each.base_entropy for each in written.trace.decisions], abs=1e-4
    )


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("Rwkv", {"hidden_size": 32, "num_hidden_layers": 2, "context_length": 64}, "takes no cache"),
        ("OpenAIGPT", {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 64}, "takes no cache"),
    ],
)
def test_models_that_take_no_cache_are_refused(kind: str, settings: dict[str, Any], said: str) -> None:
    config = getattr(transformers, f"{kind}Config")(vocab_size=SIZE, **settings)
    name = {"OpenAIGPT": "OpenAIGPTLMHeadModel"}.get(kind, f"{kind}ForCausalLM")
    model = getattr(transformers, name)(config)
    with pytest.raises(LoadError, match=said):
        load_pair((model, tokenizer()), (model, tokenizer()))


def test_readers_made_while_others_run_are_no_slower() -> None:
    """A forward has the model changed while it lasts; who looks at it then must wait."""
    models = [(random_model("llama", seed), tokenizer()) for seed in (1, 2)]
    busy = load_pair(*models)
    pairs: list[Pair] = []
    busy.generate(
        "the cat. ",
        max_tokens=8,
        ignore_eos=True,
        on_step=lambda: pairs.append(load_pair(*models)),
    )
    with busy.base.lock, busy.base.attention:  # type: ignore[attr-defined]
        late = threading.Thread(target=lambda: pairs.append(load_pair(*models)))
        late.start()
        late.join(0.2)
        assert late.is_alive()
    late.join()
    assert all(each.base.batches and each.reasoner.batches for each in pairs)
