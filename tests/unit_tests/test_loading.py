"""Loading pairs: from folders, from memory, as one model, as an adapter; and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from models import SIZE, random_model, tokenizer
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

import delegate_llm
from delegate_llm import (
    DelegationPolicy,
    LoadError,
    MissingExtraError,
    PolicyError,
    RequestError,
    VocabularyMismatchError,
    load_pair,
)
from delegate_llm.errors import require

POLICY = DelegationPolicy(threshold=3.0)
SETTINGS: dict[str, Any] = {"policy": POLICY, "max_tokens": 20, "trace": "full", "ignore_eos": True}


def save(folder: Path, seed: int, *, safe: bool = True, **changes: Any) -> Path:
    model = random_model("llama", seed, scale=6.0, **changes)
    model.save_pretrained(folder)
    if not safe:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("pair")
    return save(root / "base", 1), save(root / "reasoner", 2)


def test_folders_and_loaded_models_are_the_same_pair(folders: tuple[Path, Path]) -> None:
    loaded = load_pair(*((random_model("llama", seed, scale=6.0), tokenizer()) for seed in (1, 2)))
    from_disk = load_pair(str(folders[0]), folders[1], device="cpu", dtype="float32")
    assert from_disk.generate("the", **SETTINGS) == loaded.generate("the", **SETTINGS)


def test_dtype_is_honoured(folders: tuple[Path, Path]) -> None:
    pair = load_pair(*folders, dtype="bfloat16")
    assert pair.base.model.dtype == torch.bfloat16
    assert pair.generate("the", **SETTINGS).trace.summary.tokens == 20
    assert load_pair(*folders).base.model.dtype == torch.float32
    with pytest.raises(RequestError, match="int8"):
        load_pair(*folders, dtype="int8")


def test_one_checkpoint_named_twice_is_loaded_once(folders: tuple[Path, Path]) -> None:
    pair = load_pair(folders[0], str(folders[0]))
    assert pair.base.model is pair.reasoner.model
    made = pair.generate("the", policy=DelegationPolicy(divergence="tv", threshold=0.001), max_tokens=20)
    assert made.trace.summary.takeovers == 0


def test_a_policy_beside_the_weights_becomes_the_pairs_own(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    own = save(tmp_path / "reasoner", 2)
    policy = DelegationPolicy(divergence="js", threshold=0.25, budget=0.1)
    (own / "delegation_policy.json").write_text(policy.to_json())
    assert load_pair(folders[0], own).policy == policy
    assert load_pair(folders[0], own, policy=POLICY).policy == POLICY
    assert load_pair(*folders).policy == DelegationPolicy()
    assert load_pair(*folders, policy=own / "delegation_policy.json").policy == policy
    (own / "delegation_policy.json").write_text("{}}")
    with pytest.raises(PolicyError):
        load_pair(folders[0], own)
    with pytest.raises(LoadError, match=r"nowhere.json"):
        load_pair(*folders, policy=tmp_path / "nowhere.json")


def test_different_padding_of_one_vocabulary(tmp_path: Path) -> None:
    pair = load_pair(save(tmp_path / "b", 1, rows=SIZE + 2), save(tmp_path / "r", 2, rows=SIZE + 64))
    assert (pair.vocabulary.size, pair.vocabulary.rows) == (SIZE, SIZE + 2)
    assert pair.generate("the", **SETTINGS).trace.summary.tokens == 20


# --- Adapters ---


@pytest.fixture(scope="module")
def adapter(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    model = get_peft_model(
        random_model("llama", 1, scale=6.0),
        LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False),
    )
    model.save_pretrained(folder)
    return folder


def test_an_adapter_is_switched_per_forward(folders: tuple[Path, Path], adapter: Path) -> None:
    pair = load_pair(folders[0], adapter)
    assert pair.base.model is pair.reasoner.model
    merged = get_peft_model(
        random_model("llama", 1, scale=6.0), LoraConfig(r=4, target_modules=["q_proj", "down_proj"])
    )
    merged.load_adapter(str(adapter), "own")
    merged.set_adapter("own")
    plain = load_pair(
        (random_model("llama", 1, scale=6.0), tokenizer()), (merged.merge_and_unload(), tokenizer())
    )
    for schedule in ("draft", "lockstep"):
        made, wanted = (
            each.generate(
                "the",
                schedule=schedule,
                **{**SETTINGS, "policy": DelegationPolicy(divergence="tv", threshold=0.1)},
            )
            for each in (pair, plain)
        )
        assert made.token_ids == wanted.token_ids
        assert made.trace.summary == wanted.trace.summary
    assert made.trace.summary.changed > 0


def test_pickled_adapters_are_refused(folders: tuple[Path, Path], adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(LoadError, match="safetensors"):
        load_pair(folders[0], tmp_path)


def test_an_adapter_that_does_not_fit_is_named(tmp_path: Path, adapter: Path) -> None:
    other = save(tmp_path / "wide", 1, hidden_size=64)
    with pytest.raises(LoadError, match="does not fit"):
        load_pair(other, adapter)


# --- What is refused ---


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/no/such/folder", "/no/such/folder"),
        ("./nowhere", "nowhere"),
        ("", "folder"),
        ("delegate-llm/tiny-judge", "tiny-base"),
        (Path("gone"), "gone"),
        (42, "42"),
        ((1, 2), r"\(model, tokenizer\)"),
        ([], r"\(model, tokenizer\)"),
        ((random_model("llama", 1), None), r"\(model, tokenizer\)"),
    ],
)
def test_missing_checkpoints(folders: tuple[Path, Path], name: Any, said: str) -> None:
    with pytest.raises(LoadError, match=said):
        load_pair(name, folders[1])
    with pytest.raises(LoadError, match=said):
        load_pair(folders[0], name)


def test_an_unknown_hub_id_is_one_line(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # never leave the machine
    with pytest.raises(LoadError, match="nobody/nothing") as caught:
        load_pair("nobody/nothing", folders[1])
    assert "\n" not in str(caught.value)


def test_only_safetensors_unless_asked(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    pickled = save(tmp_path / "pickled", 3, safe=False)
    with pytest.raises(LoadError, match="use_safetensors=False"):
        load_pair(pickled, folders[1])
    assert load_pair(pickled, folders[1], use_safetensors=False).generate("the", **SETTINGS)


def test_remote_code_never_runs_unless_asked(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    folder = save(tmp_path / "custom", 3)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "homemade",
        "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(LoadError, match="trust_remote_code"):
        load_pair(folder, folders[1])
    assert not (tmp_path / "ran").exists()


def test_a_broken_checkpoint_is_named(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    folder = save(tmp_path / "broken", 3)
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(LoadError, match="broken"):
        load_pair(folder, folders[1])


def test_different_tokenizers_are_named(folders: tuple[Path, Path]) -> None:
    state = json.loads(tokenizer().backend_tokenizer.to_str())
    vocab = state["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    other = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer().backend_tokenizer.from_str(json.dumps(state)), eos_token="<|end|>"
    )
    model = random_model("llama", 2)
    with pytest.raises(VocabularyMismatchError, match=r"2 of 46.*'a' / 'b'.*check_vocabulary"):
        load_pair(folders[0], (model, other))
    assert load_pair(folders[0], (model, other), check_vocabulary=False)


def test_a_renamed_control_token_is_no_difference(folders: tuple[Path, Path]) -> None:
    """As between a base and a reasoner distilled from it."""
    state = tokenizer().backend_tokenizer.to_str().replace("<|end|>", "<|fin|>")
    other = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer().backend_tokenizer.from_str(state), eos_token="<|fin|>"
    )
    assert load_pair(folders[0], (random_model("llama", 2), other))


def test_encoder_decoders_are_refused(folders: tuple[Path, Path]) -> None:
    config = T5Config(vocab_size=SIZE, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    with pytest.raises(LoadError, match="encoder-decoder"):
        load_pair(folders[0], (T5ForConditionalGeneration(config), tokenizer()))


def test_unknown_options_and_backends(folders: tuple[Path, Path]) -> None:
    with pytest.raises(RequestError, match=r"bakend|backend"):
        load_pair(*folders, backend="onnx")
    with pytest.raises(RequestError, match="device: 'abacus'"):
        load_pair(*folders, device="abacus")
    with pytest.raises(RequestError, match="devise"):
        load_pair(*folders, devise="cpu")
    for given in (7, "int8", torch.int8):
        with pytest.raises(RequestError, match=r"dtype: .*bfloat16"):
            load_pair(*folders, dtype=given)
    with pytest.raises(RequestError, match="template: 7"):
        load_pair(*folders, reasoner_template=7)
    with pytest.raises(RequestError, match="template_kwargs: 7"):
        load_pair(*folders, base_template_kwargs=7)
    with pytest.raises(PolicyError, match="policy: 7"):
        load_pair(*folders, policy=7)
    with pytest.raises(LoadError, match="no_such_setting"):
        load_pair(*folders, model_kwargs={"no_such_setting": 1})
    with pytest.raises(LoadError, match=r"none\.jinja"):
        load_pair(*folders, base_template=Path("none.jinja"))


def test_a_missing_extra_is_named() -> None:
    with pytest.raises(MissingExtraError, match=r"delegate-llm\[vllm\]"):
        require("a_module_that_is_not_there", "vllm")


# --- Importing ---


def test_import_is_quick_and_light() -> None:
    heavy = ["torch", "transformers", "vllm", "langgraph", "langchain", "langchain_core"]
    code = (
        "import sys, time; start = time.perf_counter(); import delegate_llm;"
        "took = time.perf_counter() - start;"
        f"print(took, [each for each in {heavy} if each in sys.modules])"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    ]
    times, loaded = zip(*(each.strip().split(" ", 1) for each in runs), strict=True)
    assert set(loaded) == {"[]"}
    # It takes about 0.01 s; the best of three, since machines are noisy.
    assert min(map(float, times)) < 0.3


def test_every_public_name_is_there() -> None:
    assert set(dir(delegate_llm)) == set(delegate_llm.__all__)
    for name in delegate_llm.__all__:
        assert getattr(delegate_llm, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        delegate_llm.nothing  # noqa: B018
