"""Grammars: every finished answer has the form that was asked for, whoever speaks."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from llguidance import LLTokenizer, TokenizerWrapper
from models import EOS, SIZE, random_model, tokenizer
from random_schemas import SchemaMaker
from reference import divergence
from spelled import LETTERS, accepts, alphabet, follows, grammars_of, spelling, stubborn

from delegate_llm import DelegationPolicy, Pair, load_pair
from delegate_llm.errors import GrammarError
from delegate_llm.grammar import Grammar, Grammars
from delegate_llm.pairs.prompts import Rendered
from delegate_llm.pairs.scripted import _Spelling, scripted_pair
from delegate_llm.parsing import AnswerParser, Call

RANDOM = DelegationPolicy(divergence="random", threshold=0.7)
ALL = DelegationPolicy(threshold=0.0)
SCHEDULES = ("lockstep", "draft")
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
    "required": ["x", "y"],
}


@pytest.fixture(scope="module")
def shipped() -> Pair:
    return load_pair("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")


@pytest.fixture(scope="module")
def two() -> Pair:
    """Two random models that follow grammars."""
    return spelling(load_pair(*((random_model("llama", seed, scale=6.0), tokenizer()) for seed in (1, 2))))


def tool(name: str, parameters: Any = None) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def validator(schema: Any) -> Draft202012Validator:
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def test_every_reply_validates(shipped: Pair) -> None:
    """200 schemas, temperature 1, random takeovers: what `max_tokens` did not cut parses and validates."""
    settings = {"policy": RANDOM, "temperature": 1.0, "max_tokens": 100}
    followed = finished = cut = takeovers = 0
    seed = -1
    while followed < 200:
        seed += 1
        schema = SchemaMaker(seed).document()
        prompts = ["Tom has 3 eggs.", "A: "][: 1 + seed % 2]
        try:
            replies = shipped.generate_batch(prompts, grammar={"json": schema}, seed=seed, **settings)
        except GrammarError:
            continue
        followed += 1
        for reply in replies:
            takeovers += reply.trace.summary.takeovers
            if reply.finish_reason == "length":
                cut += 1
                continue
            assert reply.finish_reason == "stop"
            finished += 1
            assert validator(schema).is_valid(json.loads(reply.text)), (seed, reply.text)
            assert "\n" not in reply.text
    assert followed > 0.9 * (seed + 1)
    assert finished > 3 * cut
    assert takeovers > 1000


NAMES = ("f", "get weather", 'say "hi"', "größe", "名前", "a}b{", "x\\y\n", "</tool_call>", "😀")


def test_every_call_validates(shipped: Pair) -> None:
    """Tools of all names and parameters, one call or many, at temperature 1 with random takeovers."""
    called: list[str] = []
    finished = cut = 0
    for seed in range(30):
        maker = SchemaMaker(1000 + seed)
        chosen = maker.random.sample(NAMES, 3)
        parameters = {name: maker.object(1) for name in chosen}
        parameters[chosen[0]] = {
            **parameters[chosen[0]],
            "properties": {"n": {"$ref": "#/$defs/n"}},
            "$defs": {"n": POINT},
        }
        many = seed % 2 == 0
        try:
            grammar = Grammar.calls([tool(*each) for each in parameters.items()], many=many)
            replies = shipped.generate_batch(
                ["Tom has 3 eggs."] * 3,
                grammar=grammar,
                policy=RANDOM,
                temperature=1.0,
                seed=[seed, seed + 100, seed + 200],
                max_tokens=160,
            )
        except GrammarError:
            continue
        for reply in replies:
            if reply.finish_reason != "stop":
                cut += 1
                continue
            finished += 1
            parser = AnswerParser()
            parts = [*parser.push(reply.text), *parser.finish()]
            assert parts
            assert many or len(parts) == 1
            for part in parts:
                assert isinstance(part, Call)
                called.append(part.name)
                assert validator(parameters[part.name]).is_valid(json.loads(part.arguments)), reply.text
    assert finished > 2 * cut
    assert len(set(called)) > 6


def test_calls_letter_by_letter() -> None:
    grammar = Grammar.calls([tool("f", POINT), tool('g"é', None), tool("h", {})])
    one = Grammar.calls([tool("f", POINT)], many=False)
    either = Grammar.calls([tool("f", POINT)], otherwise=Grammar.json({"type": "integer"}))
    f = '<tool_call>\n{"name": "f", "arguments": {"x": 1, "y": 2}}\n</tool_call>'
    g = f'<tool_call>\n{{"name": {json.dumps(chr(103) + chr(34) + "é")}, "arguments": {{}}}}\n</tool_call>'
    for text in (f, g, f"{f}\n{g}\n{f}", f.replace('{"x": 1, "y": 2}', "{}").replace('"f"', '"h"')):
        assert accepts(grammar, text)
    for text in (
        "",
        "x",
        f + "\n",
        f + f,
        f + " ",
        f.replace('"f"', '"g"'),
        f.replace("1", '"1"'),
        f[:-1],
        "3",
    ):
        assert not accepts(grammar, text)
    assert accepts(one, f)
    assert not accepts(one, f"{f}\n{f}")
    assert accepts(either, "3")
    assert accepts(either, f"{f}\n{f}")
    assert not accepts(either, f"3\n{f}")


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        (Grammar.regex(r"a/b|[}/]\/x"), ["a/b", "}/x", "//x"], ["a", "a/b "]),
        (Grammar.regex("(?i)ab+\n?"), ["AB", "abb\n"], ["b"]),
        (Grammar.regex(r"\d*"), ["", "12"], ["x"]),
        (
            Grammar.choice(["yes", "no", 'q"\\\n', "é😀", "/x/", "}"]),
            ["yes", 'q"\\\n', "é😀", "/x/", "}"],
            ["", "y"],
        ),
        (Grammar.lark('start: "(" start ")" | X | "}"\nX: /[a-c]+/'), ["((ab))", "(})"], ["", "(a"]),
        (Grammar.json(True), ["1", '{"a": []}'], ["", '{"a":[]}']),
        (Grammar.json(json.dumps(POINT)), ['{"x": 1, "y": -2}'], ['{"x": 1}', '{"y": 1, "x": 2}']),
        (
            Grammar.calls([tool("f", POINT)]),
            ['<tool_call>\n{"name": "f", "arguments": {"x": 1, "y": 2}}\n</tool_call>'],
            ["1"],
        ),
    ],
)
def test_other_forms_with_and_without_thoughts(grammar: Grammar, good: list[str], bad: list[str]) -> None:
    for text in good:
        assert accepts(grammar, text)
        for thoughts in ("</think>", "hm</think>\n\n", "<b> </thin {</think> "):
            assert accepts(grammar, thoughts + text, thinking=True)
        assert not accepts(grammar, text, thinking=True)
        assert not accepts(grammar, f"</think>\n\n\n\n{text}", thinking=True)
    for text in bad:
        assert not accepts(grammar, text)
        assert not accepts(grammar, f"hm</think>{text}", thinking=True)


def test_thoughts_come_first_where_the_prompt_has_opened_them(shipped: Pair) -> None:
    """There the tag is a token of its own, which no text may spell."""
    vocabulary = shipped.vocabulary
    assert vocabulary.grammars is not None
    tag = next(each for each in range(vocabulary.size) if vocabulary.piece(each) == "</think>")
    words = shipped.prompter.completion_ids("3 + 4 = 7")
    answer = shipped.prompter.completion_ids('{"x": 1, "y": 2}')
    for thoughts in ([], words, [*words, *words]):
        guide = vocabulary.grammars.guide(Grammar.json(POINT), thinking=True)
        end = min(vocabulary.eos)
        assert follows(guide, [*thoughts, tag, *answer], end=end)
        assert not guide.allowed([*thoughts, tag])[tag]
        assert not guide.allowed(thoughts)[end]
        assert not follows(guide, [*thoughts, tag, *words], end=end)
    prompt = Rendered((5, 6), (5, 6), thinking=True, reasoner_thinking=True)
    grammar = Grammar.json({"type": "array", "items": {"type": "boolean"}, "maxItems": 3})
    done = 0
    for seed in range(6):
        made = shipped.generate(
            prompt, grammar=grammar, policy=RANDOM, temperature=3.0, seed=seed, max_tokens=300
        )
        thoughts, closed, text = made.text.partition("</think>")
        if made.finish_reason == "stop":
            done += 1
            assert closed
            assert len(json.loads(text)) <= 3
    assert done > 0


GRAMMARS = (
    Grammar.regex("(ab|ba)*x?"),
    Grammar.choice(["abba", "ab", "b{}a"]),
    Grammar.json(
        {
            "type": "object",
            "properties": {
                "a": {"enum": [0, 1]},
                "b": {"type": "array", "items": {"const": "x"}, "maxItems": 3},
            },
        }
    ),
    Grammar.lark('start: "a" start "b" | "x"'),
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_is_allowed_depends_on_the_tokens_alone(data: st.DataObject) -> None:
    """A guide that goes back and forth says what a fresh one says."""
    pieces, end = alphabet()
    grammar = data.draw(st.sampled_from(GRAMMARS))
    kept = grammars_of(pieces, end)
    guide, chance = kept.guide(grammar), data.draw(st.randoms(use_true_random=False))
    lines: list[list[int]] = [[]]
    for _ in range(30):
        line = chance.choice(lines)
        mask = guide.allowed(line)
        fresh = kept.guide(grammar)
        assert mask.tolist() == fresh.allowed(line).tolist()
        forced = guide.forced(line)
        assert forced == fresh.forced(line)
        for at, each in enumerate(forced):
            assert fresh.allowed([*line, *forced[:at]])[each]
        assert mask[end] == accepts(grammar, "".join(pieces[each] for each in line))
        lines += [[*line, each] for each in mask.nonzero()[0].tolist() if each != end]
        lines = lines[-40:]


def test_every_end_of_sequence_ends_an_answer() -> None:
    """Two models may end their answers with different tokens."""
    pieces = [*"0123456789", "<|a|>", "<|b|>"]

    def lexicon() -> Any:
        spelled = _Spelling(pieces, 10)
        spelled.special_token_ids = [10, 11]
        return LLTokenizer(TokenizerWrapper(spelled), n_vocab=12, eos_token=[10, 11])

    guide = Grammars(lexicon, 12).guide(Grammar.regex("[0-9]{2}"))
    assert guide.allowed([1]).nonzero()[0].tolist() == list(range(10))
    assert guide.allowed([1, 2]).nonzero()[0].tolist() == [10, 11]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_takeover_never_breaks_the_form(schedule: str) -> None:
    pieces = [*LETTERS, EOS]
    pair = stubborn("a", EOS, pieces, len(LETTERS))
    schema = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}}, "required": ["a"]}
    made = pair.generate(
        "a", grammar={"json": schema}, policy=ALL, schedule=schedule, trace="full", max_tokens=60
    )
    assert made.finish_reason == "stop"
    assert validator(schema).is_valid(json.loads(made.text))
    alone = pair.generate(
        "a", grammar={"json": schema}, policy=DelegationPolicy(budget=0), schedule=schedule, max_tokens=60
    )
    assert json.loads(alone.text) == {"a": "aaa"}
    # Where the form leaves no choice the two agree, and there is nothing to take over.
    for decision in made.trace.decisions[:6]:
        assert decision.score == pytest.approx(0.0, abs=1e-6)
        assert not decision.takeover or decision.score > 0


def test_the_two_are_compared_over_what_is_allowed(two: Pair) -> None:
    """Scores are those of the softmax over the allowed tokens, in float64, on both schedules."""
    grammar = Grammar.regex("([a-f]{1,3} ){2,4}[0-9]+(e |th|x)")
    prompt = tokenizer()("the cat. ").input_ids
    assert two.vocabulary.grammars is not None
    for name in ("cross_entropy", "reverse_kl", "kl", "js", "tv", "nll_gap", "entropy", "top1"):
        texts = set()
        for schedule in SCHEDULES:
            policy = DelegationPolicy(
                divergence=name, threshold={"js": 0.1, "tv": 0.2, "top1": 0.1}.get(name, 1.0)
            )
            made = two.generate(
                prompt, grammar=grammar, policy=policy, schedule=schedule, trace="full", max_tokens=40
            )
            texts.add(made.token_ids)
            guide = two.vocabulary.grammars.guide(grammar)
            for at, decision in enumerate(made.trace.decisions):
                seen = list(made.token_ids[:at])
                may = torch.from_numpy(guide.allowed(seen))
                p, q = (raw(each.model, prompt + seen)[may].softmax(-1) for each in (two.base, two.reasoner))
                wanted = 0.0 if len(p) == 1 else divergence(name, p, q)
                assert decision.score == pytest.approx(wanted, abs=2e-3)
                speaker = q if decision.takeover else p
                assert decision.token_id == int(may.nonzero()[int(speaker.argmax()), 0])
            if made.finish_reason == "stop":
                assert re.fullmatch("([a-f]{1,3} ){2,4}[0-9]+(e |th|x)", made.text)
        assert len(texts) == 1


def raw(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0, -1, :SIZE].double()


def test_forced_tokens_save_forwards(shipped: Pair) -> None:
    grammar = Grammar.choice(["The answer is forty-two, and nothing else will do."])
    off = DelegationPolicy(budget=0)
    slow, fast = (shipped.generate("A: ", grammar=grammar, policy=off, schedule=each) for each in SCHEDULES)
    assert slow.text == fast.text == "The answer is forty-two, and nothing else will do."
    assert slow.usage.base_forwards == len(slow.token_ids)
    assert fast.usage.base_forwards <= len(fast.token_ids) // 3
    # A draft never runs further ahead than it may.
    short = shipped.generate("A: ", grammar=grammar, policy=DelegationPolicy(threshold=99.0), draft=2)
    assert short.text == slow.text
    assert short.usage.base_forwards > fast.usage.base_forwards


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_cut_answers_are_a_beginning(two: Pair, schedule: str) -> None:
    grammar = Grammar.regex("[a-z]{5}[0-9]{20}")
    made = two.generate("the cat. ", grammar=grammar, max_tokens=9, schedule=schedule)
    assert made.finish_reason == "length"
    assert re.fullmatch("[a-z]{5}[0-9]{0,4}", made.text)


def test_a_stop_string_does_not_cut_a_form_in_two(two: Pair) -> None:
    made = two.generate("the cat. ", grammar={"choice": ["abc. def."]}, stop=[". ", "b"])
    assert made.text == "abc. def."


def test_rows_of_a_batch_follow_one_grammar_each_on_its_own(two: Pair) -> None:
    settings = {"grammar": {"regex": "([a-z]{2} )+x"}, "temperature": 1.0, "max_tokens": 30, "policy": RANDOM}
    prompts = ["the cat. ", "a", "12 eggs"]
    rows = two.generate_batch(prompts, seed=[1, 2, 3], **settings)
    for prompt, seed, row in zip(prompts, (1, 2, 3), rows, strict=True):
        assert row.token_ids == two.generate(prompt, seed=seed, **settings).token_ids


def test_threads_share_grammars(shipped: Pair) -> None:
    grammar = {"json": POINT}
    settings = {"grammar": grammar, "temperature": 1.0, "max_tokens": 40}
    wanted = [shipped.generate("A: ", seed=seed, **settings).text for seed in range(6)]
    shipped.vocabulary.grammars._compiled.clear()  # type: ignore[union-attr]
    made: dict[int, str] = {}

    def run(seed: int) -> None:
        made[seed] = shipped.generate("A: ", seed=seed, **settings).text

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [made[seed] for seed in range(6)] == wanted


def test_grammars_are_compiled_once_and_the_last_ones_kept() -> None:
    kept = grammars_of([*LETTERS, EOS], len(LETTERS))
    for count in range(70):
        kept.guide(Grammar.choice([str(count)]))
        kept.guide(Grammar.choice(["0"]))
    assert len(kept._compiled) == 64
    before = kept._compiled[Grammar.choice(["0"]), False]
    kept.guide(Grammar.choice(["0"]))
    assert kept._compiled[Grammar.choice(["0"]), False] is before


def test_a_form_may_repeat_itself() -> None:
    def says_a(ids: Sequence[int]) -> Sequence[float]:
        del ids
        return [9.0, 0.0, 0.0]

    two = scripted_pair(says_a, says_a, ["a", "b", "<end>"], eos=2)
    assert two.generate("b", max_tokens=400).finish_reason == "repetition"
    said = two.generate("b", grammar={"regex": "a{300}"}, max_tokens=400)
    assert (said.text, said.finish_reason) == ("a" * 300, "stop")
