"""A reasoner that is a PEFT adapter of the base: one set of weights, switched per forward."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from models import random_model, save, tokenizer
from peft import LoraConfig, get_peft_model

from delegate_llm import DelegationPolicy, LoadError, load_pair

POLICY = DelegationPolicy(threshold=3.0)
SETTINGS: dict[str, Any] = {"policy": POLICY, "max_tokens": 20, "trace": "full", "ignore_eos": True}


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


@pytest.mark.parametrize("own", [[], ["lm_head"], ["lm_head", "embed_tokens"]])
def test_an_adapter_costs_the_reasoner_alone(
    folders: tuple[Path, Path], tmp_path: Path, own: list[str]
) -> None:
    model = random_model("llama", 1, scale=6.0)
    head = 2.0 * model.lm_head.weight.numel()
    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=own)
    get_peft_model(model, config).save_pretrained(tmp_path)
    plain, pair = load_pair(*folders), load_pair(folders[0], tmp_path)
    assert pair.base.costs == plain.base.costs
    rank, layers, wide = 4, 2, 32
    assert pair.reasoner.costs.body == plain.base.costs.body + 2.0 * layers * rank * (wide + wide)
    assert pair.reasoner.costs.head == head


def test_the_base_of_an_adapter_is_shared_with_nobody(folders: tuple[Path, Path], adapter: Path) -> None:
    plain = load_pair(*folders)
    adapted = load_pair(folders[0], adapter)
    again = load_pair(folders[0], adapter)
    assert len({id(each.base.model) for each in (plain, adapted, again)}) == 3
    assert load_pair(*folders).base.model is plain.base.model
    assert not any("lora" in name for name, _ in plain.base.model.named_modules())


def test_pickled_adapters_are_refused(folders: tuple[Path, Path], adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(LoadError, match="safetensors"):
        load_pair(folders[0], tmp_path)


def test_an_adapter_that_does_not_fit_is_named(tmp_path: Path, adapter: Path) -> None:
    other = save(tmp_path / "wide", 1, hidden_size=64)
    with pytest.raises(LoadError, match="does not fit"):
        load_pair(other, adapter)


def test_an_adapter_on_a_given_model_changes_nobody_else_s(adapter: Path, folders: tuple[Path, Path]) -> None:
    model = random_model("llama", 1, scale=6.0)
    given = (model, tokenizer())
    plain = load_pair(given, given)
    before = plain.generate("the", **SETTINGS)
    with pytest.raises(LoadError, match=r"used by another pair.*copy"):
        load_pair(given, adapter)
    assert plain.generate("the", **SETTINGS) == before
    del plain
    gc.collect()
    adapted = load_pair(given, adapter)
    assert adapted.generate("the", **SETTINGS) == load_pair(folders[0], adapter).generate("the", **SETTINGS)
    with pytest.raises(LoadError, match="holds an adapter already"):
        load_pair(given, adapter)
    with pytest.raises(LoadError, match="the adapter of another pair"):
        load_pair(given, folders[1])


def test_a_broken_adapter_is_named(folders: tuple[Path, Path], adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(LoadError, match=tmp_path.name):
        load_pair(folders[0], tmp_path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa' that changes the base"),
        ({"bias": "all"}, "bias 'all' that changes the base"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication .* that changes the base"),
    ],
)
def test_an_adapter_that_changes_the_base_is_refused(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    model = random_model("llama", 1, attention_bias=True)
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], **settings)).save_pretrained(tmp_path)
    given = (random_model("llama", 1, attention_bias=True), tokenizer())
    before = load_pair(given, given).generate("the", max_tokens=4)
    gc.collect()
    with pytest.raises(LoadError, match=said):
        load_pair(given, tmp_path)
    assert load_pair(given, given).generate("the", max_tokens=4) == before


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
@pytest.mark.parametrize(
    ("layers", "said"), [(4, "the base has no place for .*layers.2"), (1, "the adapter lacks .*layers.1")]
)
def test_an_adapter_with_other_weights_than_it_should_have(tmp_path: Path, layers: int, said: str) -> None:
    model = random_model("llama", 1, num_hidden_layers=layers)
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(tmp_path)
    given = (random_model("llama", 1), tokenizer())
    with pytest.raises(LoadError, match=said):
        load_pair(given, tmp_path)
    assert not any("lora" in name for name, _ in given[0].named_modules())


def test_what_is_wrong_besides_is_found_before_the_model_is_changed(adapter: Path, tmp_path: Path) -> None:
    given = (random_model("llama", 1, scale=6.0), tokenizer())
    for wrong in ({"policy": tmp_path / "none.json"}, {"base_template": tmp_path / "none.jinja"}):
        with pytest.raises(LoadError, match="cannot read"):
            load_pair(given, adapter, **wrong)
    load_pair(given, given)
