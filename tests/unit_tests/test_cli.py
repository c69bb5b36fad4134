"""The command line: what reaches stdout, stderr and the exit code; model text is never markup."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import EOS, random_model, tokenizer
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as token_models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from typer.testing import CliRunner

from delegate_llm import DelegationPolicy, Generation, __version__
from delegate_llm.cli import app, loading
from delegate_llm.cli.run import run
from delegate_llm.cli.stream import Highlighter
from delegate_llm.cli.terminal import json_text, visible
from delegate_llm.pairs.pair import Piece
from delegate_llm.request import Schedule
from delegate_llm.text import AnswerText
from delegate_llm.trace import Decision, TraceLevel

TEMPLATE = "{% for m in messages %}<{{ m.content }}>{% endfor %}"
QUESTION = "Tom has 3 boxes with 4 pens in each. Tom sells 5 pens. How many pens are left?"
HOSTILE = [
    "\x1b[31m",
    "\x1b]0;pwned\x07",
    "\r",
    "\x9b2J",
    "\u202e",
    "\x7f",
    "[bold]",
    "[/]",
    ":smile:",
    "e ",
]
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")
COLOURS = re.compile(r"\x1b\[(?:0|1;32|2|2;9)m")
NOTE = re.compile("⟨(?:end; )?base: [^⟩]*⟩")

SOME_TAKEOVERS = ["--divergence", "random", "--threshold", "0.6", "--seed", "5"]

Save = Callable[[PreTrainedTokenizerBase], list[str]]


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory) -> Save:
    """Write a random pair with a tokenizer to disk; gives the options that name it."""

    def saved(words: PreTrainedTokenizerBase) -> list[str]:
        words = copy.deepcopy(words)
        words.chat_template = TEMPLATE
        options = []
        for seed, who in enumerate(("base", "reasoner")):
            folder = tmp_path_factory.mktemp(who)
            model = random_model("llama", seed, rows=len(words), scale=6.0)
            model.generation_config.eos_token_id = words.eos_token_id
            model.save_pretrained(folder)
            words.save_pretrained(folder)
            options += [f"--{who}", str(folder)]
        return options

    return saved


@pytest.fixture(scope="module")
def pair(save: Save) -> list[str]:
    return [*save(tokenizer()), "--max-tokens", "40", *SOME_TAKEOVERS]


def call(*arguments: str, **settings: Any) -> Any:
    return CliRunner().invoke(app, arguments, catch_exceptions=False, **settings)


def answer(*arguments: str) -> Generation:
    result = call("run", "the cat.", "--json", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return Generation.from_json(result.stdout)


def test_json_is_one_generation(pair: list[str]) -> None:
    kept = answer(*pair).trace
    assert 0 < len(kept.decisions) == kept.summary.takeovers < kept.summary.tokens
    full = answer(*pair, "--trace", "full")
    assert len(full.trace.decisions) == len(full.token_ids)


def test_a_pipe_gets_the_answer_and_nothing_else(pair: list[str]) -> None:
    result = call("run", "the cat.", *pair)
    assert result.exit_code == 0
    assert result.stdout.removesuffix("\n") == answer(*pair).text
    assert (result.stderr, "\x1b" in result.stdout) == ("", False)


@pytest.mark.usefixtures("colours")
def test_a_terminal_shows_takeovers_in_place(pair: list[str]) -> None:
    done = Generation.from_json(call("run", "the cat.", "--json", *pair).stdout)
    result = call("run", "the cat.", *pair)
    shown = COLOURS.sub("", result.stdout)
    assert NOTE.sub("", shown).removesuffix("\n") == done.text
    assert len(NOTE.findall(shown)) == done.trace.summary.changed > 0
    assert f"{done.trace.summary.tokens} tokens" in result.stderr


def test_a_seed_names_a_text(pair: list[str]) -> None:
    one, same, other = (answer(*pair, "--temperature", "1", "--seed", s).text for s in "778")
    assert one == same != other
    assert answer(*pair, "--temperature", "1", "--seed", "7", "--schedule", "lockstep").text == one


@pytest.mark.parametrize(("budget", "most"), [("2", 2), ("0", 0), ("0.05", 8 + 2)])
def test_budget_is_a_count_or_a_share(pair: list[str], budget: str, most: int) -> None:
    assert answer(*pair, "--budget", budget).trace.summary.takeovers <= most
    assert (budget == "0") == (answer(*pair, "--budget", budget).usage.reasoner_forwards == 0)


def test_options_change_single_settings_of_a_saved_policy(pair: list[str], tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text(DelegationPolicy(threshold=3.0, budget=1).to_json())
    with_file = [*pair[: -len(SOME_TAKEOVERS)], "--policy", str(file)]
    assert answer(*with_file).trace.summary.takeovers == 1
    assert answer(*with_file, "--threshold", "99").trace.summary.takeovers == 0
    result = call("run", "hi", *with_file, "--divergence", "js")
    assert (result.exit_code, "--threshold" in result.stderr) == (2, True)


def test_prompts_come_as_messages_as_text_and_from_stdin(pair: list[str]) -> None:
    chat, raw, stdin = (
        Generation.from_json(call("run", *given, "--json", *pair, input="the cat.\n").stdout)
        for given in (("the cat.",), ("<the cat.>", "--raw"), ("-",))
    )
    assert chat == raw == stdin
    assert answer(*pair, "--system", "go").usage.prompt_tokens > chat.usage.prompt_tokens


def test_stop_and_its_text(pair: list[str]) -> None:
    text = answer(*pair).text
    assert answer(*pair, "--stop", text[3]).text == text[: text.index(text[3])]


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (1, ["--base", "./nowhere"]),
        (1, ["--base", "delegate-llm/huge"]),
        (2, ["--threshold", "-1"]),
        (2, ["--divergence", "guess"]),
        (2, ["--spike", "-2"]),
        (2, ["--budget", "much"]),
        (2, ["--budget", "1.5"]),
        (2, ["--temperature", "-1"]),
        (2, ["--top-p", "0"]),
        (2, ["--max-tokens", "0"]),
        (2, ["--policy", "nowhere.json"]),
        (2, ["--device", "abacus"]),
        (2, ["--dtype", "int8"]),
        (2, ["--raw", "--system", "x"]),
    ],
)
def test_errors_are_one_line_and_a_code(pair: list[str], code: int, arguments: list[str]) -> None:
    result = call("run", "hi", *pair, *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["run"], ["run", "hi", "--threshold", "high"], ["fly"]])
def test_usage_errors_exit_with_2(arguments: list[str]) -> None:
    assert call(*arguments).exit_code == 2


@pytest.mark.parametrize("question", ["", "  \n", "\udcff"])
def test_a_question_that_is_none(question: str) -> None:
    result = call("run", question)
    assert (result.exit_code, result.stderr.startswith("error: question: ")) == (2, True)


@pytest.mark.parametrize("command", ["demo", "compare-agents"])
def test_interrupt_is_quiet(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loading, "prepare", interrupted)
    result = call(command, "--problems", "2")
    assert (result.exit_code, result.output) == (130, "")


def test_version() -> None:
    assert call("--version").stdout == f"delegate-llm {__version__}\n"


@pytest.mark.parametrize(
    ("command", "option"), [("run", "--threshold"), ("demo", "--live"), ("compare-agents", "--budgets")]
)
def test_help_is_quick(command: str, option: str) -> None:
    code = (
        "import sys\nfrom delegate_llm.cli import app\n"
        f"try: app(['{command}', '--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'langchain_core', 'langgraph'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert option in done.stdout


def test_a_reader_that_goes_away(pair: list[str]) -> None:
    command = [sys.executable, "-m", "delegate_llm", "run", "the cat.", *pair]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert (process.stderr.read(), process.wait()) == ("", 1)
    process.stderr.close()


# --- Model text is data ---


def hostile_tokenizer() -> PreTrainedTokenizerFast:
    table = {word: at for at, word in enumerate(HOSTILE)}
    inner = Tokenizer(token_models.WordLevel(table, unk_token="e "))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=EOS)


@pytest.fixture(scope="module")
def hostile(save: Save) -> list[str]:
    return [*save(hostile_tokenizer()), "--max-tokens", "60", *SOME_TAKEOVERS]


@pytest.mark.usefixtures("colours")
def test_model_text_cannot_steer_a_terminal(hostile: list[str]) -> None:
    result = call("run", "hi", *hostile)
    shown = COLOURS.sub("", result.stdout)
    text = json.loads(call("run", "hi", *hostile, "--json").stdout)["text"]
    assert STEERING.search(text)
    assert not STEERING.search(shown)
    assert NOTE.sub("", shown).removesuffix("\n") == visible(text)
    assert NOTE.search(shown)


def test_model_text_reaches_a_pipe_as_it_is(hostile: list[str]) -> None:
    result = call("run", "hi", *hostile, "--json")
    assert not STEERING.search(result.stdout.removesuffix("\n"))
    piped = call("run", "hi", *hostile).stdout_bytes.decode()
    assert piped.removesuffix("\n") == Generation.from_json(result.stdout).text


def test_visible_spells_out_what_steers() -> None:
    assert visible("a\tb\n[red]\x1b[2J\r\x7f\x9b\u202e") == "a\tb\n[red]␛[2J␍␡\\u009b\\u202e"


@given(st.text())
def test_json_stays_the_same(text: str) -> None:
    escaped = json_text(json.dumps(text, ensure_ascii=False))
    assert json.loads(escaped) == text
    assert not STEERING.search(escaped)


def _bytes(ids: Sequence[int]) -> str:
    return bytes(ids).decode(errors="replace")


@given(
    said=st.text(st.characters(exclude_characters="⟨⟩", exclude_categories=["Cs"]), max_size=30),
    stop=st.sampled_from([(), ("ab",), ("é",), ("a\nb", "0")]),
    decodes=st.booleans(),
    data=st.data(),
)
def test_highlights_neither_lose_nor_add_text(
    said: str, stop: tuple[str, ...], decodes: bool, data: Any
) -> None:
    """Tokens that are single bytes tear characters; pieces come as `Pair.stream` cuts them."""
    text, highlighter = AnswerText(_bytes, stop), Highlighter(_bytes if decodes else None)
    held: list[Decision] = []
    shown = changed = 0
    plain = ""

    def feed(upto: int) -> str:
        nonlocal shown, held
        piece = Piece(text.text[shown:upto], tuple(held))
        shown, held = upto, []
        return highlighter.feed(piece).plain

    for at, byte in enumerate(said.encode()):
        flag = data.draw(st.booleans())
        held.append(
            Decision(
                position=at,
                token_id=byte,
                token=_bytes([byte]),
                changed=flag,
                base_token_id=0,
                base_token="x",
            )
        )
        changed += flag
        text.push(byte)
        if text.stopped:
            break
        if text.safe() > shown and data.draw(st.booleans()):
            plain += feed(text.safe())
    text.finish()
    plain += feed(len(text.text)) + highlighter.finish().plain
    assert NOTE.sub("", plain) == visible(text.text)
    assert len(NOTE.findall(plain)) == changed


# --- The pair that ships ---


def test_the_shipped_pair_answers() -> None:
    done = Generation.from_json(call("run", QUESTION, "--json").stdout)
    assert done.text.endswith("The answer is 7.")
    assert done.finish_reason == "stop"
    assert 0 < done.trace.summary.changed < done.trace.summary.tokens / 4


def test_demo_json_has_every_number() -> None:
    result = call("demo", "--problems", "8", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert {"version", "base", "reasoner", "problems", "seed", "policy", "results"} == set(report)
    DelegationPolicy.model_validate(report["policy"])
    base, reasoner, delegated, lot = report["results"]
    assert [each["name"] for each in report["results"]] == [
        "base alone", "reasoner alone", "delegated", "random",
    ]  # fmt: skip
    assert (base["share"], base["reasoner_forwards_per_token"], base["recovery"]) == (0, 0, 0)
    assert (reasoner["share"], reasoner["base_forwards_per_token"], reasoner["recovery"]) == (
        1,
        0,
        1,
    )
    assert 0 < delegated["share"] < 0.25
    assert delegated["accuracy"] > max(base["accuracy"], lot["accuracy"])
    assert all(each["seconds"] > 0 and each["tokens"] > 0 for each in report["results"])


def test_demo_in_a_pipe_is_plain_text() -> None:
    result = call("demo", "--problems", "2", "--live", "2")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    assert "Problem 1, in text" in result.stdout
    rows = [line for line in result.stdout.splitlines() if line.startswith(("base alone", "random"))]
    assert len({len(row) for row in rows}) == 1


def test_demo_ends_with_an_agent_and_what_it_spent() -> None:
    shown = call("demo", "--problems", "2", "--live", "1", "--seed", "2").stdout
    *_, agent = shown.partition("An agent with tools, and 4 takeovers to spend: ")
    assert "Problem 1" not in shown
    noted, results = len(NOTE.findall(agent)), re.findall(r"^tool: (-?\d+)$", agent, re.MULTILINE)
    assert noted > 0
    assert results
    assert agent.count("<tool_call>") >= len(results)
    spent, left = map(int, re.findall(r"; (\d) of 4 takeovers spent, (\d) left, in \d+ tokens\n", agent)[0])
    assert spent + left == 4
    assert noted <= spent
    assert f"The answer is {results[-1]}.\n→ right" in agent


def test_demo_without_live_problems_is_the_table_alone() -> None:
    shown = call("demo", "--problems", "2", "--live", "0").stdout
    assert shown.startswith("Accuracy on 2 fresh problems")
    assert "agent" not in shown


def test_choices_are_those_of_the_engine() -> None:
    hints = get_type_hints(run)
    assert hints["schedule"] == Schedule
    assert hints["trace"] == TraceLevel
