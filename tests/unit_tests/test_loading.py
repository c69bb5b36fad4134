"""Loading pairs: from folders, from memory, as one model, as an adapter; and what is refused."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from models import SIZE, random_model, save, tokenizer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
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


# --- Shared weights ---


def test_pairs_share_the_checkpoints_they_have_in_common(
    folders: tuple[Path, Path], loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_pair(*folders)
    second = load_pair(str(folders[0]), folders[0], device="cpu", dtype="float32")
    assert second.base.model is second.reasoner.model is first.base.model
    assert second.base.lock is second.reasoner.lock is first.base.lock is not first.reasoner.lock
    monkeypatch.chdir(folders[0].parent)
    assert load_pair("./base", folders[1].name).reasoner.model is first.reasoner.model
    assert len(loads) == 2
    for options in ({"dtype": "bfloat16"}, {"model_kwargs": {"attn_implementation": "eager"}}):
        assert load_pair(*folders, **options).base.model is not first.base.model
    assert len(loads) == 6


def test_weights_go_with_the_last_pair(folders: tuple[Path, Path], loads: list[str]) -> None:
    pair = load_pair(*folders)
    alive = weakref.ref(pair.base.model)
    other = load_pair(*folders)
    del pair
    gc.collect()
    assert alive() is other.base.model
    del other
    gc.collect()
    assert alive() is None
    load_pair(*folders)
    assert len(loads) == 4


def test_a_changed_checkpoint_is_loaded_afresh(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    folder = save(tmp_path / "own", 3)
    before = load_pair(folders[0], folder)
    (folder / "training.log").write_text("no part of the checkpoint")
    (folder / "delegation_policy.json").write_text(POLICY.to_json())
    same = load_pair(folders[0], folder)
    assert same.reasoner.model is before.reasoner.model
    assert same.policy == POLICY
    save(folder, 4)
    after = load_pair(folders[0], folder)
    assert after.base.model is before.base.model
    assert not torch.equal(after.reasoner.model.lm_head.weight, before.reasoner.model.lm_head.weight)


def test_an_error_is_not_remembered(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    with pytest.raises(LoadError):
        load_pair(folders[0], tmp_path / "late")
    assert load_pair(folders[0], save(tmp_path / "late", 3))


def test_one_lock_for_one_given_model() -> None:
    base, reasoner = ((random_model("llama", seed), tokenizer()) for seed in (1, 2))
    one, two = load_pair(base, reasoner), load_pair(reasoner, base)
    assert one.base.lock is two.reasoner.lock is not one.reasoner.lock
    assert one.reasoner.lock is two.base.lock


def test_threads_load_one_after_the_other(folders: tuple[Path, Path], loads: list[str]) -> None:
    """transformers changes settings of the whole process while it loads."""
    with ThreadPoolExecutor(4) as pool:
        pairs = list(pool.map(lambda _: load_pair(*folders), range(4)))
    assert len({id(pair.base.model) for pair in pairs}) == 1
    assert len(loads) == 2


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


@pytest.mark.parametrize("turned", [False, True])
def test_an_ordinary_token_is_no_control_token_of_the_other(turned: bool) -> None:
    pairs = [(random_model("llama", seed, rows=4), _words(*words)) for seed, words in enumerate(WORDS_APART)]
    with pytest.raises(VocabularyMismatchError, match=r"2 of 4 token ids.*2: '(b|<x>)' / '(b|<x>)'"):
        load_pair(*(reversed(pairs) if turned else pairs))


def test_a_control_token_that_one_of_them_lacks_is_no_difference() -> None:
    lacking, having = (_words(["u", "a", "b", "c"], added) for added in ([], ["<x>", "<y>"]))
    models = [random_model("llama", seed, rows=6) for seed in (1, 2)]
    for tokenizers in ((lacking, having), (having, lacking)):
        assert load_pair(*zip(models, tokenizers, strict=True)).vocabulary.size == 6


WORDS_APART = ((["u", "a", "b", "c"], []), (["u", "a"], ["<x>", "<y>"]))


def _words(ordinary: list[str], added: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of words, and of control tokens that were added to it."""
    inner = Tokenizer(WordLevel({word: at for at, word in enumerate(ordinary)}, unk_token="u"))
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="u")
    fast.add_special_tokens({"additional_special_tokens": added})
    return fast


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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 4}, r"lacks \d+ weights .* such as model\.layers\.2"),
        ({"hidden_size": 16}, r"cannot load .*config\.json"),
    ],
)
def test_weights_that_do_not_fill_the_model_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, changes: dict[str, int], said: str
) -> None:
    """transformers would go on with random numbers."""
    folder = save(tmp_path / "other", 3)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(LoadError, match=said):
        load_pair(folder, folders[1])


@pytest.mark.parametrize(
    "options",
    [
        {"model_kwargs": 5},
        {"trust_remote_code": "false"},
        {"use_safetensors": "no"},
        {"device": "meta"},
    ],
)
def test_bad_options(folders: tuple[Path, Path], options: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=next(iter(options))):
        load_pair(*folders, **options)


def test_a_broken_policy_beside_the_weights_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    folder = save(tmp_path / "reasoner", 2)
    (folder / "delegation_policy.json").write_text("{")
    with pytest.raises(PolicyError, match=r"delegation_policy\.json"):
        load_pair(folders[0], folder)
