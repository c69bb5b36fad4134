"""What the benchmark of vLLM makes of what it measured, and what it asks the engines for."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import bench_vllm
from benchmarks.vllm_figures import Answer, Counts, Lap, Ratio, claims, percentile, ratios, rows, same
from benchmarks.vllm_load import Method, Plan, counted, decided, requests
from benchmarks.vllm_pair import Found, models_of, questions
from delegate_llm import DelegationPolicy
from delegate_llm.vllm_plugin.wire import IDLE, KEY, SALT, STRIDE, TRACED, policy_of


def answer(count: int = 11, **settings: Any) -> Answer:
    return Answer(**{"tokens": list(range(count)), "first": 0.5, "last": 1.5, **settings})


def lap(method: str, seconds: float, answers: list[Answer] | None = None, **counts: int) -> Lap:
    return Lap(method, 2, seconds, answers or [answer(), answer()], Counts(**counts))


LOSSLESS = {"steps": 10, "drafts": 6, "drafted": 48, "accepted": 20, "whole": 1}


@pytest.mark.parametrize(("part", "value"), [(0, 1.0), (0.5, 2.0), (0.75, 4.0), (0.99, 5.92), (1, 6.0)])
def test_percentiles_lie_between_neighbours(part: float, value: float) -> None:
    assert percentile([6.0, 1.0, 2.0], part) == pytest.approx(value)


def test_a_row_is_the_median_lap() -> None:
    (row,) = rows([lap("reasoner", seconds, steps=11) for seconds in (4.0, 1.0, 2.0)])
    assert (row.tokens, row.seconds, row.speed) == (22, 2.0, 11.0)
    assert (row.first, row.each, row.slowest) == (0.5, 0.1, 0.1)
    assert row.step_ms == pytest.approx(2000 / 11)


def test_answers_that_come_whole_have_no_waits() -> None:
    (row,) = rows([lap("transformers 0.05", 1.0, [answer(first=None, last=None)])])
    assert (row.first, row.each, row.slowest, row.step_ms) == (None, None, None, 0.0)


def test_what_follows_a_refusal_was_not_judged() -> None:
    (row,) = rows([lap("lossless", 1.0, **LOSSLESS)])
    assert row.rejected == pytest.approx(5 / 25)
    assert row.accepted == pytest.approx(20 / 48)
    assert row.share is None


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([answer(), answer()], (6 + 2) / 22),  # the engine counts drafts, not the reading of prompts
        ([answer(forwards=0), answer(forwards=0)], 0),
        ([answer(forwards=3), answer(forwards=4)], 7 / 22),
    ],
)
def test_forwards_are_counted_where_they_are_known(answers: list[Answer], expected: float) -> None:
    (row,) = rows([lap("any", 1.0, answers, **LOSSLESS)])
    assert row.forwards == pytest.approx(expected)


def test_shares_are_told_only_where_every_answer_tells() -> None:
    told = answer(takeovers=[0, 4], changed=1, forwards=3)
    (row,) = rows([lap("delegation", 1.0, [told, told])])
    assert (row.share, row.changed) == (pytest.approx(2 / 11), pytest.approx(1 / 11))
    assert row.rejected is None
    (row,) = rows([lap("delegation", 1.0, [told, answer()])])
    assert row.share is None


def test_a_ratio_is_what_its_parts_make() -> None:
    told = answer(takeovers=[2], forwards=3)
    found = rows(
        [
            lap("lossless", 3.0, **LOSSLESS),
            lap("delegation", 2.0, [told, told], steps=5),
            lap("transformers", 2.0, [told, told]),
            lap("delegation budget 0", 1.0, [answer(takeovers=[])], steps=5),
        ]
    )
    (one,) = ratios(found, "lossless", 8)
    assert one.method == "delegation"
    assert one.ratio == pytest.approx(1.5)
    assert (one.fuller_steps, one.dearer_steps) == (2.0, pytest.approx(400 / 300))
    assert one.ratio == pytest.approx(one.fuller_steps / one.dearer_steps)
    assert one.most == pytest.approx(9 / (1 + 20 / 6))


def test_a_ratio_of_answers_that_end_counts_tokens() -> None:
    told = answer(22, takeovers=[2], forwards=3)
    (one,) = ratios(
        rows([lap("lossless", 3.0, **LOSSLESS), lap("delegation", 2.0, [told, told], steps=5)]), "lossless", 8
    )
    assert one.fuller_steps == pytest.approx(4.0)
    assert one.ratio == pytest.approx(one.fuller_steps / one.dearer_steps) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("share", "target"), [(0.01, 1.5), (0.09, 1.5), (0.11, 1.0), (0.29, 1.0), (0.3, None), (0.4, None)]
)
def test_claims_are_made_where_their_condition_is_met(share: float, target: float | None) -> None:
    made = claims([Ratio("delegation", 4, 1.2, 1.0, 1.0, share=share, rejected=0.3, most=2.0)])
    assert [each.target for each in made] == ([] if target is None else [target])
    assert [each.holds for each in made] == ([] if target is None else [target < 1.2])


def test_the_same_tokens() -> None:
    other = [answer(), answer(12)]
    found = same([lap("a", 1.0), lap("b", 1.0, other), lap("b", 1.0)], "a", "b")
    assert found == {2: 0.5}
    assert same([lap("a", 1.0)], "a", "b") == {}


def test_the_same_takeovers_where_they_are_told() -> None:
    one, two = ([answer(takeovers=[0, 3]), answer(takeovers=last)] for last in ([1], [2]))
    assert same([lap("a", 1.0, one), lap("b", 1.0, two)], "a", "b") == {2: 0.5}
    assert same([lap("a", 1.0, one), lap("b", 1.0)], "a", "b") == {2: 1.0}


@pytest.mark.parametrize(("level", "count"), [(1, 4), (3, 6), (4, 4), (32, 32)])
def test_a_lap_is_made_of_whole_waves(level: int, count: int) -> None:
    assert requests(level, 4) == count


def test_laps_and_plans_travel_as_json() -> None:
    one = lap("lossless", 1.0, [answer(takeovers=[0, 1, 2])], **LOSSLESS)
    assert Lap.of(json.loads(json.dumps(dataclasses.asdict(one)))) == one
    plan = Plan({"model": "m"}, [Method("a", {"b": 1}, salt="c")], [[1, 2]], [0], 8, [1], 4)
    assert Plan.of(json.loads(json.dumps(dataclasses.asdict(plan)))) == plan


def test_steps_are_counted_with_their_drafts() -> None:
    drafts = SimpleNamespace(
        num_drafts=3, num_draft_tokens=24, num_accepted_tokens=11, num_accepted_tokens_per_pos=[3, 2, 1]
    )
    total = counted(SimpleNamespace(spec_decoding_stats=drafts)) + counted(SimpleNamespace())
    assert total == Counts(steps=2, drafts=3, drafted=24, accepted=11, whole=1)


def test_an_answer_says_what_was_decided() -> None:
    # asked and read, nothing taken over; taken over and changed; taken over without a change
    flags = [1 | 4 | 8, 1 | 2, 1 | 2]
    said = [(5, 5, 6), (7, 5, 7), (8, 8, 8)]
    flat = [
        ([a, b + STRIDE, c + 2 * STRIDE, 3 * STRIDE], [-0.1, float(flag), 2.0, 1.0])
        for (a, b, c), flag in zip(said, flags, strict=True)
    ]
    found = decided(flat, 1.0, [1.5, 3.0], Method("delegation", {TRACED: 1}), [5, 7, 8])
    assert found == Answer([5, 7, 8], 0.5, 2.0, takeovers=[1, 2], changed=1, asked=3, forwards=1)


@pytest.mark.parametrize(("forwards", "expected"), [(None, None), (0, 0), (1, 3)])
def test_an_answer_that_tells_nothing(forwards: int | None, expected: int | None) -> None:
    found = decided([], 1.0, [1.5, 3.0], Method("any", {}, forwards=forwards), [5, 7, 8])
    assert found == Answer([5, 7, 8], 0.5, 2.0, forwards=expected)


def test_engines_differ_in_nothing_but_their_method() -> None:
    delegating = {
        "model": "reasoner",
        "worker_cls": "ours",
        "speculative_config": {"model": "base"},
        "additional_config": {"delegation": {}, "user": 1},
        "dtype": "float32",
    }
    thresholds = {"0.02": 4.0, "0.05": 2.5}
    made = bench_vllm.engines(Found(delegating, "base", [], [], thresholds, []), 0.05)
    alone = {"model": "reasoner", "additional_config": {"user": 1}, "dtype": "float32"}
    assert {name: arguments for name, (arguments, _) in made.items()} == {
        "reasoner": alone,
        "base": {**alone, "model": "base"},
        "lossless": {**alone, "speculative_config": {"model": "base"}},
        "delegation": delegating,
    }
    asked = {method.name: method for method in made["delegation"][1]}
    assert list(asked) == [
        "delegation 0.02",
        "delegation 0.05",
        "delegation 0.05 no trace",
        "delegation budget 0",
    ]
    assert policy_of(asked["delegation 0.02"].extra) == DelegationPolicy(threshold=4.0)
    assert asked["delegation 0.05"].extra == {**asked["delegation 0.05 no trace"].extra, TRACED: 1}
    idle = asked["delegation budget 0"]
    assert (idle.salt, idle.extra[IDLE], json.loads(idle.extra[KEY])["budget"]["limit"]) == (SALT, 1, 0)


def test_options() -> None:
    given = bench_vllm._parse(
        ["--shares", "0.01,0.1", "--concurrency", "2,8", "--engine-args", '{"seed": 1}', "--k", "4"]
    )
    assert (given.shares, given.concurrency, given.engine_args, given.k) == (
        [0.01, 0.1],
        [2, 8],
        {"seed": 1},
        4,
    )
    assert bench_vllm._parse(["--quick"]).concurrency == [1, 4]


def test_pairs_by_name() -> None:
    assert models_of("tiny")[0] == "delegate-llm/tiny-base"
    assert models_of("some/base,some/reasoner") == ("some/base", "some/reasoner")
    for wrong in ("some", ",some", "some,"):
        with pytest.raises(ValueError, match="BASE,REASONER"):
            models_of(wrong)


def test_questions_are_all_different() -> None:
    found = list(questions(["bread", "banks"]))
    assert len(found) == len(set(found)) == 16
