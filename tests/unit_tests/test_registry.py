"""Pairs by name: loaded once, whoever asks, and let go of together."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from models import random_model, save, tokenizer

from delegate_llm import DelegationPolicy, LoadError, RequestError, WindowGate
from delegate_llm.pairs.registry import forget_pairs, shared_pair

POLICY = DelegationPolicy(threshold=3.0)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    forget_pairs()
    yield
    forget_pairs()


def test_one_pair_however_it_is_named(
    folders: tuple[Path, Path], loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = shared_pair(*folders)
    assert shared_pair(str(folders[0]), f"{folders[1]}/") is pair
    monkeypatch.chdir(folders[0].parent)
    assert shared_pair("./base", "reasoner", backend="transformers") is pair
    assert len(loads) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "bfloat16"},
        {"policy": POLICY},
        {"policy": {"threshold": 3.0, "budget": {"rate": 0.1}}},
        {"policy": DelegationPolicy(threshold=3.0, gates=[WindowGate(first=2)])},
        {"base_template": "{{ messages }}"},
        {"reasoner_template": Path(__file__)},
        {"reasoner_template_kwargs": {"enable_thinking": True}},
        {"reasoner_template_kwargs": {"words": ["a", "b"]}},
        {"model_kwargs": {"attn_implementation": "eager"}},
        {"check_vocabulary": False},
    ],
)
def test_every_option_counts(folders: tuple[Path, Path], options: dict[str, Any]) -> None:
    pair = shared_pair(*folders, **options)
    assert shared_pair(*folders, **options) is pair
    assert shared_pair(*folders) is not pair
    shares = not {"dtype", "model_kwargs"} & options.keys()
    assert (shared_pair(*folders).base.model is pair.base.model) is shares


def test_values_of_different_types_are_different(folders: tuple[Path, Path]) -> None:
    pairs = [shared_pair(*folders, base_template_kwargs={"flag": flag}) for flag in (1, True, 1.0, "1")]
    assert len(set(map(id, pairs))) == 4


def test_loaded_models_are_told_apart_by_identity() -> None:
    one, two = ((random_model("llama", 1), tokenizer()) for _ in range(2))
    pair = shared_pair(one, two)
    assert shared_pair(list(one), two) is pair
    assert shared_pair(two, one) is not pair
    alive = weakref.ref(one[0])
    del one, pair
    gc.collect()
    assert alive() is not None  # else another model could come to have its identity


def test_threads_that_ask_at_once_get_one(folders: tuple[Path, Path], loads: list[str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        pairs = list(pool.map(lambda at: shared_pair(folders[at % 2], folders[1]), range(16)))
    assert len({id(pair) for pair in pairs}) == 2
    assert len({id(pair.reasoner.model) for pair in pairs}) == 1
    assert len(loads) == 2


def test_a_pair_is_kept_until_all_are_forgotten(folders: tuple[Path, Path], loads: list[str]) -> None:
    alive = weakref.ref(shared_pair(*folders).base.model)
    gc.collect()
    assert alive() is shared_pair(*folders).base.model
    forget_pairs()
    gc.collect()
    assert alive() is None
    assert shared_pair(*folders)
    assert len(loads) == 4


def test_changed_files_make_a_new_pair(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    folder = save(tmp_path / "own", 3)
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages[0].content }}")
    policy = tmp_path / "policy.json"
    policy.write_text(POLICY.to_json())

    def pair() -> Any:
        return shared_pair(folders[0], folder, base_template=template, policy=str(policy))

    first = pair()
    assert pair() is first
    for path in (template, policy, folder / "delegation_policy.json"):
        path.write_text(DelegationPolicy(threshold=4.0).to_json())
        changed = pair()
        assert changed is not first
        assert changed.reasoner.model is first.reasoner.model
        first = changed
    alive = weakref.ref(first.reasoner.model)
    save(folder, 4)
    assert pair().reasoner.model is not first.reasoner.model
    del first, changed
    gc.collect()
    assert alive() is None


def test_errors_are_not_remembered(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    for base, said in ((tmp_path / "late", "no folder"), (42, "neither a hub id")):
        with pytest.raises(LoadError, match=said):
            shared_pair(base, folders[1])
    for base in ("~nosuchuser/x", Path("~nosuchuser/x"), Path("x" * 5000), "/" + "x" * 5000, Path("a\0b")):
        with pytest.raises(LoadError, match="no folder"):
            shared_pair(base, folders[1])
    for policy in ("~nosuchuser/x", Path("x" * 5000), "a\0b"):
        with pytest.raises(LoadError, match="cannot read"):
            shared_pair(*folders, policy=policy)
    with pytest.raises(LoadError, match=r"the revision \['main'\] is not text"):
        shared_pair(*folders, revision=["main"])
    with pytest.raises(RequestError, match="devise"):
        shared_pair(*folders, devise="cpu")
    with pytest.raises(RequestError, match="onnx"):
        shared_pair(*folders, backend="onnx")
    save(tmp_path / "late", 3)
    assert shared_pair(tmp_path / "late", folders[1])
