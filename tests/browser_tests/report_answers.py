"""Answers to look at in a browser: a few small ones, long ones by chance, and hostile ones."""

from __future__ import annotations

import random
from typing import Any

from delegate_llm.policy import Budget, DelegationPolicy
from delegate_llm.report import Shown
from delegate_llm.trace import Decision, Logprob, Summary, Trace

POLICY = DelegationPolicy(threshold=1.5, spike=1.1, budget=Budget(rate=0.1))
WORDS = ("First", " multiply", " 3", " by", " 4", ":", "\n", " so", " 12", ".", " The", " answer", " is")

HOSTILE = [
    "<script>window.pwned = 1</script>",
    "</script><script>window.pwned = 1</script>",
    "<!--<script>",
    "<img src=x onerror='window.pwned = 1'>",
    "<svg onload=window.pwned=1>",
    '" onmouseover="window.pwned = 1',
    "</style><style>* { display: none !important }</style>",
    "javascript:window.pwned=1",
    "{{ 7 * 7 }}",
    "&lt;b&gt; &#60;script&#62;",
    "\u202egnirts\u202c",
    "\u2067\u2066",
    "\x00\x07\x1b[31m\x7f\x9b",
    "\u2028\u2029",
    "\ud800",
    "\udfff\ud83d",
    "\ufffd",
    "a" + "\u0301" * 500,
    "𒐫" * 50,
    "\n" * 20,
    "",
    " ",
    "__proto__",
    "W" * 100_000,
]


def decision(position: int, token: str, **fields: Any) -> Decision:
    """A decision at which the reasoner was asked and agreed, unless told otherwise."""
    plain = {"base_token": token, "reasoner_token": token, "score": 0.25, "base_entropy": 0.5, "asked": True}
    return Decision(position=position, token=token, token_id=1, base_token_id=1, **{**plain, **fields})


def traced(decisions: list[Decision]) -> Trace:
    """All of them, counted."""
    taken = sum(each.takeover for each in decisions)
    return Trace(
        decisions=tuple(decisions),
        summary=Summary(
            tokens=len(decisions),
            takeovers=taken,
            changed=sum(each.changed for each in decisions),
            asked=sum(each.asked for each in decisions),
            share=taken / max(1, len(decisions)),
        ),
    )


def written(count: int, seed: int, *, takeovers: float = 0.06) -> Trace:
    """An answer of `count` tokens by chance."""
    dice = random.Random(seed)
    made = []
    for position in range(count):
        taken = dice.random() < takeovers
        token, other = dice.choice(WORDS), dice.choice(WORDS)
        base = other if taken else token
        score = dice.uniform(1.6, 8) if taken else dice.expovariate(3)
        top = tuple(Logprob(token_id=1, token=each, logprob=-1.23) for each in dice.choices(WORDS, k=5))
        fields = {
            "base_top": top,
            "reasoner_top": top,
            "takeover": taken,
            "changed": base != token,
            "base_token": base,
            "score": score,
        }
        made.append(decision(position, token, **fields))
    return traced(made)


def small() -> list[Shown]:
    """Three answers: of two nodes, with and without takeovers, one with the base's own beside."""
    five = [
        decision(0, "First"),
        decision(1, " multiply", takeover=True, changed=True, base_token=" add", score=4.0),
        decision(2, " 3 by 4.\n", score=0.9),
        decision(3, "12", takeover=True, score=2.0),
        decision(4, "."),
    ]
    own = Shown(id="own", trace=Trace(level="off"), text="First add 3 and 4.", correct=False)
    return [
        Shown(id="1", title="How many pens?", prompt="How many pens?", trace=traced(five), policy=POLICY,
              node="planner", correct=True, own=own),
        Shown(id="2", title="A plain answer", trace=written(30, 1, takeovers=0), policy=POLICY, node="writer",
              correct=False),
        Shown(id="3", title="Another one", trace=traced(five[3:4]).model_copy(update={"level": "takeovers"}),
              text="It is 12.", node="planner"),
    ]  # fmt: skip


def hostile() -> list[Shown]:
    """Every hostile text as a token, one of the base, a prompt, title, node, arm, note and own answer."""
    decisions = [
        decision(
            at, text, takeover=at % 2 == 0, changed=at % 2 == 0, base_token=HOSTILE[-1 - at], score=at / 3
        )
        for at, text in enumerate(HOSTILE)
    ]
    whole = "".join(HOSTILE)
    own = Shown(id="own", trace=Trace(level="off"), text=whole[::-1])
    return [
        Shown(id=text, title=text, prompt=whole, node=text, arm=text, trace=traced(decisions), policy=POLICY,
              own=own, notes=(text,))
        for text in HOSTILE[:-1]
    ]  # fmt: skip
