"""The answers of a worker: what they remember fits them, and goes with them."""

from __future__ import annotations

import torch
from seated import request

from delegate_llm.policy import DelegationPolicy
from delegate_llm.vllm_plugin.seats import Drawing, Seats

SPIKE = {"spike": 1.5, "spike_window": 10**12}


def seats() -> Seats:
    return Seats(torch.device("cpu"), DelegationPolicy(), Drawing(), lambda: lambda ids: "." * len(ids))


def test_a_window_is_no_longer_than_its_answer_and_goes_with_it() -> None:
    some = seats()
    requests = {
        "long": request(SPIKE, 50),
        "short": request({"spike": 2.0, "spike_window": 3}, 50),
        "none": request({}, 50),
    }
    some.arrange(list(requests), requests)
    assert some.standings.scores.shape == (3, 50)
    assert some.rules.window.tolist()[:2] == [50, 3]
    before = some.standings
    heard = [torch.arange(7.0, dtype=torch.float64), torch.tensor([4.0, 5.0, 6.0], dtype=torch.float64)]
    scores = before.scores.clone()
    scores[0, :7] = heard[0]
    scores[1, [4, 5, 6]] = heard[1]
    some.standings = before._replace(seen=torch.tensor([7.0, 7.0, 0.0], dtype=torch.float64), scores=scores)

    some.leave(["long"])
    some.arrange(["short", "none"], requests)
    assert some.standings.scores.shape == (2, 3)
    # The n-th score is at n modulo the width: 4, 5 and 6 at 1, 2 and 0.
    assert some.standings.scores[0].tolist() == [6.0, 4.0, 5.0]
    some.arrange(["short", "again"], {**requests, "again": request(SPIKE, 5)})
    assert some.standings.scores[0].tolist() == [5.0, 6.0, 0.0, 0.0, 4.0]
    some.leave(["short", "again", "none"])
    assert some._scores.shape[1] == 0


def test_what_stands_in_for_a_draft_is_not_read() -> None:
    """vLLM fills up the draft of a request that it could not draft for."""
    some = seats()
    requests = {"one": request({"gates": ["boundary"]}, 50)}
    some.arrange(["one"], requests)
    assert some.batch[0].limits([], [-1, -1, -1]) == [float("inf")]
    assert len(some.batch[0].limits([5], [6, 7])) == 3
