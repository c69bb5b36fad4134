"""What passes the door, and in which form the worker gets it."""

import json
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is not installed in this environment; `make test-vllm` makes one")

from msgspec.msgpack import decode, encode
from vllm.sampling_params import SamplingParams, StructuredOutputsParams

from delegate_llm import DelegationPolicy
from delegate_llm.errors import PolicyError, RequestError
from delegate_llm.sampling import as_int64
from delegate_llm.serving.admission import Limits, admit
from delegate_llm.vllm_plugin.seats import Drawing, Seats
from delegate_llm.vllm_plugin.wire import COLUMNS, policy_of

LIMITS = Limits(
    context=100, ahead=8, logprobs=20, eos=(2, 5), synchronous=True, policy=DelegationPolicy(), special=dict
)


def test_the_form():
    given = SamplingParams(
        logprobs=3,
        temperature=1,
        stop_token_ids=[7],
        max_tokens=500,
        extra_args={"delegation": '{"budget": 2}', "delegation_trace": "full", "mine": 1},
    )
    before = given.clone()
    sampling, told, level, logprobs, seeds, silent = admit(given, 10, LIMITS)
    assert given == before
    assert not silent
    assert (told, level, logprobs) == (True, "full", 3)
    assert sampling.logprobs == 3 + COLUMNS - 1
    assert sampling.stop_token_ids == [2, 5, 7]
    assert sampling.max_tokens == 100 - 10 - 2 * 8 - 1
    assert seeds == [sampling.seed]
    assert policy_of(sampling.extra_args) == DelegationPolicy(budget=2)
    assert sampling.extra_args["delegation_trace"] == sampling.extra_args["mine"] == 1


def test_nothing_said():
    sampling, told, level, logprobs, seeds, silent = admit(
        SamplingParams(temperature=0, max_tokens=5), 10, LIMITS
    )
    assert (told, level, logprobs, seeds, silent) == (False, "takeovers", None, [None], False)
    assert (sampling.max_tokens, sampling.logprobs) == (5, COLUMNS - 1)
    assert sampling.extra_args == {"delegation_trace": 1}
    assert admit(SamplingParams(max_tokens=None), 10, LIMITS).sampling.max_tokens == 73


def test_a_temperature_that_vllm_lifts():
    found = [
        admit(SamplingParams(temperature=each), 1, LIMITS, temperature=each).sampling.extra_args
        for each in (0.0, 0.002, 0.5)
    ]
    assert [each.get("delegation_temperature") for each in found] == [None, 0.002, None]


def test_a_policy_that_never_listens():
    asks = SamplingParams(extra_args={"delegation": '{"budget": 0}'})
    found = admit(asks, 1, LIMITS)
    assert found.silent
    assert found.sampling.extra_args["delegation_idle"] == 1


@pytest.mark.parametrize("name", ["delegation_forced", "delegation_idle", "delegation_policy"])
def test_arguments_that_are_not_for_clients(name):
    with pytest.raises(RequestError, match="no such argument"):
        admit(SamplingParams(extra_args={name: 1}), 1, LIMITS)


@pytest.mark.parametrize("seed", [2**64 - 1, 2**64 - 2, 2**64 - 3, -1, -3, -(2**63)])
def test_seeds_at_the_ends_of_what_a_message_holds(seed):
    found = admit(SamplingParams(n=3, extra_args={"delegation_seed": seed}), 1, LIMITS)
    assert found.seeds == [(seed + at) % 2**64 for at in range(3)]
    seats = Seats(torch.device("cpu"), DelegationPolicy(), Drawing(), lambda: str)
    choices = {}
    for at in range(3):  # as vLLM makes them, on their way through a message
        choice = found.sampling.clone()
        choice.seed += at
        choices[str(at)] = SimpleNamespace(sampling_params=decode(encode(choice), type=SamplingParams))
    seats.arrange(list(choices), choices)
    assert seats.seeds.tolist() == [as_int64(each) for each in found.seeds]


def test_seeds_of_choices():
    assert admit(SamplingParams(n=3, seed=4), 1, LIMITS).seeds == [4, 5, 6]
    by_key = admit(SamplingParams(n=2, extra_args={"delegation_seed": 9}), 1, LIMITS)
    assert by_key.seeds == [9, 10]
    assert "delegation_seed" not in by_key.sampling.extra_args
    drawn = {admit(SamplingParams(), 1, LIMITS).sampling.seed for _ in range(8)}
    assert len(drawn) == 8


def test_an_answer_that_ignores_its_end():
    assert admit(SamplingParams(ignore_eos=True), 1, LIMITS).sampling.stop_token_ids == []


@pytest.mark.parametrize("tokens", [83, 100])
def test_prompts_without_room(tokens):
    with pytest.raises(RequestError, match="max-model-len"):
        admit(SamplingParams(), tokens, LIMITS)
    assert admit(SamplingParams(), 82, LIMITS).sampling.max_tokens == 1


@pytest.mark.parametrize("gates", ["boundary", {"turn": {"final": 2}}])
def test_gates_that_read_the_text(gates):
    ahead = LIMITS._replace(synchronous=False)
    asks = SamplingParams(extra_args={"delegation": json.dumps({"gates": gates})})
    assert admit(asks, 1, LIMITS)
    with pytest.raises(PolicyError, match="--no-async-scheduling"):
        admit(asks, 1, ahead)
    with pytest.raises(PolicyError, match="--no-async-scheduling"):
        admit(SamplingParams(), 1, ahead._replace(policy=DelegationPolicy(gates=gates)))
    assert admit(SamplingParams(), 1, ahead)


def test_one_spelling_of_json():
    for form in ({"json": {"type": "object"}}, {"json": '{"type": "object"}'}, {"json_object": True}):
        given = SamplingParams(structured_outputs=StructuredOutputsParams(**form))
        found = admit(given, 1, LIMITS).sampling.structured_outputs
        assert found.json["x-guidance"]["key_separator"] == ": "
        assert found.json["type"] == "object"
        assert not found.json_object
        other = admit(given, 1, LIMITS._replace(special=None)).sampling.structured_outputs
        assert other == given.structured_outputs
