"""Calibrates the policy of the shipped pair: `python -m delegate_llm.tiny.calibrate --share 0.05`.

The base answers problems of the calibration split by itself, in both formats; the reasoner scores each
position; the threshold follows from the scores. Then the policy is tried on the test split, and printed.
`--save` puts it beside the reasoner's weights, where `load_pair` finds it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import torch
from langchain_core.messages import AIMessage
from transformers.utils import logging

from delegate_llm import DelegatedChatModel, DelegationPolicy, load_pair, tiny
from delegate_llm.calibration import threshold_for
from delegate_llm.evaluation.problems import Chat, answers, evaluate
from delegate_llm.pairs.loading import POLICY_FILE
from delegate_llm.pairs.pair import Pair
from delegate_llm.tiny.agent import MAX_TOKENS
from delegate_llm.tiny.authors import FORMATS, Format
from delegate_llm.tiny.problems import problems

__all__ = ("base_scores", "main")


def base_scores(pair: Pair, count: int) -> list[float]:
    """The cross-entropy at every position of the base's own answers.

    Args:
        pair: Whose base answers, greedily.
        count: Calibration problems in each format.
    """
    found: list[float] = []
    # It scores every position and takes none over.
    listen = DelegationPolicy(threshold=math.inf)
    answer = answers(DelegatedChatModel(pair=pair, policy=listen, max_tokens=MAX_TOKENS, trace="full"))

    def listening(chats: Sequence[Chat], form: Format, /) -> Sequence[AIMessage]:
        made = answer(chats, form)
        decisions = (each for one in made for each in one.response_metadata["delegation"]["decisions"])
        found.extend(each["score"] for each in decisions if each["score"] is not None)
        return made

    for form in FORMATS:
        evaluate(listening, problems(count, seed=0, split="calibration"), form)
    return found


def main() -> None:
    """Calibrate, try, and keep if asked to."""
    parser = argparse.ArgumentParser(description="Calibrates the policy of the pair that ships.")
    parser.add_argument("--share", type=float, default=0.05, help="nominal share of takeovers")
    parser.add_argument("--problems", type=int, default=200, help="in each format, for both steps")
    parser.add_argument("--save", action="store_true", help="write it beside the reasoner's weights")
    options = parser.parse_args()
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # models this small lose time to more
    pair = load_pair("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")
    threshold = round(threshold_for(base_scores(pair, options.problems), options.share), 3)
    policy = DelegationPolicy(threshold=threshold)
    model = DelegatedChatModel(pair=pair, policy=policy, max_tokens=MAX_TOKENS, trace="off")
    print(f"threshold {threshold} nats for a nominal share of {options.share}")
    for form in FORMATS:
        fresh = problems(options.problems, seed=1, split="test")
        outcome = evaluate(answers(model), fresh, form)
        print(f"{form}: {outcome.accuracy:.1%} of {len(fresh)} right at a share of {outcome.share:.3f}")
    if options.save:
        path = tiny.path("reasoner") / POLICY_FILE
        path.write_text(policy.to_json(indent=2) + "\n", encoding="utf-8")
        print(f"saved as {path.name} beside the reasoner's weights")


if __name__ == "__main__":
    main()
