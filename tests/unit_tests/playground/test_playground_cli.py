"""`delegate-llm playground`: what it says, what it refuses, and that Ctrl-C ends it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from delegate_llm.cli import app
from delegate_llm.cli.playground import _key, _named
from delegate_llm.errors import RequestError

TINY = ("delegate-llm/tiny-base", "delegate-llm/tiny-reasoner")
PATIENCE_S = 60.0


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "delegate_llm", "playground", "--port", "0", "--json", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())["url"]
        finally:
            process.kill()


def test_ctrl_c_ends_it_quietly_even_while_it_answers() -> None:
    with started() as (process, url):
        body: dict[str, Any] = {"pair": 0, "question": "pens " * 40, "temperature": 9, "max_tokens": 32768}
        with httpx.stream("POST", f"{url}api/ask", json=body, timeout=PATIENCE_S) as response:
            lines = response.iter_lines()
            while json.loads(next(lines))["event"] != "start":
                pass
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (130, "", "")


def test_ctrl_c_does_not_wait_for_weights() -> None:
    with started() as (process, url):
        assert httpx.post(f"{url}api/load", json={"pair": 0}).json()["state"] == "loading"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (130, "", "")


def test_pairs_on_offer_are_those_that_are_named() -> None:
    with started("--pair", "a/b,c/d", "--pair", "./here/base, ~/reasoner") as (_, url):
        pairs = httpx.get(f"{url}api/pairs").json()["pairs"]
    assert [(each["base"], each["reasoner"]) for each in pairs] == [("a/b", "c/d"), ("base", "reasoner")]


@pytest.mark.parametrize(
    ("base", "reasoner", "pairs", "found"),
    [
        (None, None, None, [TINY]),
        ("x", None, None, [("x", TINY[1])]),
        ("x", "y", ["a,b"], [("x", "y"), ("a", "b")]),
        (None, None, ["a,b", "a, b"], [("a", "b")]),
    ],
)
def test_what_the_options_name(base: Any, reasoner: Any, pairs: Any, found: list[Any]) -> None:
    assert _named(base, reasoner, pairs, "transformers") == found


@pytest.mark.parametrize(
    ("said", "arguments"),
    [
        ("pair: 'a' does not name two models", ["--pair", "a"]),
        ("pair: 'a,' does not name two models", ["--pair", "a,"]),
        ("base_url: ", ["--backend", "remote"]),
        ("base_url: ", ["--base-url", "http://127.0.0.1:1"]),
        ("pair: the server carries one", ["--backend", "remote", "--base-url", "x", "--pair", "a,b"]),
        ("api_key: ", ["--api-key", ""]),
        ("api_key: ", ["--api-key", "schlüssel"]),
        ("host: ", ["--host", "no such host.invalid"]),
    ],
)
def test_errors_are_one_line_and_a_code(said: str, arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["playground", "--port", "0", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {said}")
    assert result.stderr.count("\n") == 1


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["playground", "--port", str(port)])
    assert result.exit_code == 2
    assert f"127.0.0.1:{port}" in result.stderr
    assert "--port" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "warned"),
    [
        ([], None),
        (["--host", "0.0.0.0"], "whoever reaches the port can use the models"),
        (["--host", "0.0.0.0", "--api-key", "k"], "whoever has the key and reaches the port"),
    ],
)
def test_being_open_to_others_is_said(arguments: list[str], warned: str | None) -> None:
    with started(*arguments) as (process, url):
        assert httpx.get(f"{url}api/pairs").status_code == (401 if "k" in arguments else 200)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert (warned or "") in err
    assert bool(err) == bool(warned)


@pytest.mark.parametrize(
    ("given", "variable", "local", "key"),
    [
        (None, None, False, None),
        (None, "env", False, "env"),
        (None, "env", True, None),
        ("own", "env", False, "own"),
        ("own", None, True, "own"),
    ],
)
def test_which_key_counts(
    given: str | None, variable: str | None, local: bool, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DELEGATE_LLM_API_KEY", raising=False)
    if variable is not None:
        monkeypatch.setenv("DELEGATE_LLM_API_KEY", variable)
    assert _key(given, local=local) == key


@pytest.mark.parametrize("given", ["", " k", "k\n", "\x00"])
def test_keys_that_no_header_carries(given: str) -> None:
    with pytest.raises(RequestError, match=r"api_key: "):
        _key(given, local=True)


def test_it_starts_without_torch() -> None:
    code = (
        "import sys\nfrom delegate_llm.cli import app\n"
        "try: app(['playground', '--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'starlette', 'uvicorn'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--base-url" in done.stdout
