"""A pair on a server is the pair: same answers, traces, streams and errors, over HTTP."""

import asyncio
import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed in this environment; `make test-vllm` makes one")

import openai
from typer.testing import CliRunner
from vllm_server import MODEL, free_port, serving

from delegate_llm import DelegatedChatModel, Generation, load_pair
from delegate_llm.cli import app
from delegate_llm.errors import EngineError, GrammarError, LoadError, PolicyError, PromptError, RequestError
from delegate_llm.evaluation.evaluating import Plan, evaluate
from delegate_llm.evaluation.tasks import shipped_tasks
from delegate_llm.tiny.agent import TOOLS, execute
from delegate_llm.tiny.problems import grade, messages, problems

PROBLEMS = problems(16, seed=7, split="test")
CHATS = [messages(each) for each in PROBLEMS]
SCHEMA = {
    "title": "Number",
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["n"],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("remote") / "log", "--api-key", "sesame") as found:
        yield found


@pytest.fixture(scope="module")
def remote(server):
    pair = load_pair(backend="remote", base_url=server.url, api_key="sesame")
    yield pair
    pair.close()


def essence(generation):
    return generation.model_copy(
        update={
            "usage": None,
            "trace": generation.trace.model_copy(
                update={
                    "decisions": tuple(
                        each.model_copy(update={"score": None, "base_entropy": None})
                        for each in generation.trace.decisions
                    )
                }
            ),
            "logprobs": generation.logprobs
            and [(each.token_id, [one.token_id for one in each.top]) for each in generation.logprobs],
        }
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"trace": "full"},
        {"temperature": 0.8, "seed": 3, "top_p": 0.9, "top_k": 50},
        {"policy": {"budget": 0}},
        {"policy": {"threshold": 0.1, "budget": {"limit": 3, "asks": 9}, "gates": ["boundary"]}},
        {"stop": ["="], "max_tokens": 40},
        {"grammar": {"json": SCHEMA}, "max_tokens": 30},
        {"grammar": {"choice": ["yes", "no"]}, "temperature": 1.0, "seed": 1},
        {"logprobs": 2, "max_tokens": 9},
        {"ignore_eos": True, "max_tokens": 80, "trace": "off"},
    ],
    ids=str,
)
def test_it_answers_as_the_pair_does(remote, reference, settings):
    found = remote.generate_batch(CHATS, **settings)
    wanted = reference.generate_batch(CHATS, schedule="lockstep", **settings)
    assert [essence(each) for each in found] == [essence(each) for each in wanted]
    assert all(
        each.usage.prompt_tokens == like.usage.prompt_tokens for each, like in zip(found, wanted, strict=True)
    )


def test_a_stream_adds_up(remote, reference):
    *pieces, last = remote.stream(CHATS[0], temperature=0.7, seed=5)
    assert isinstance(last, Generation)
    assert len(pieces) > 3
    assert "".join(each.text for each in pieces) == last.text
    assert [each.token_id for piece in pieces for each in piece.decisions] == list(last.token_ids)
    assert essence(last) == essence(reference.generate(CHATS[0], temperature=0.7, seed=5))


def test_the_command_line_asks_a_server(server, reference, monkeypatch):
    monkeypatch.setenv("DELEGATE_LLM_API_KEY", "sesame")
    question = PROBLEMS[0].question
    arguments = ["run", question, "--backend", "remote", "--base-url", server.url]
    wanted = reference.generate(CHATS[0])
    done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert essence(Generation.from_json(done.stdout)) == essence(wanted)
    plain = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert plain.stdout == f"{wanted.text}\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
    assert shown.count("⟨base: ") == wanted.trace.summary.changed > 0
    lost = CliRunner().invoke(app, [*arguments[:-1], "http://127.0.0.1:1"], catch_exceptions=False)
    assert (lost.exit_code, "does not answer" in lost.stderr) == (1, True)


def test_an_evaluation_over_the_wire(remote, reference, tmp_path):
    plan = Plan(
        models={},
        tasks=shipped_tasks(4, seed=8),
        calibration=shipped_tasks(8, seed=8, split="calibration"),
        shares=[0.08],
        settings={"max_tokens": 96},
    )
    found = []
    for at, pair in enumerate((remote, reference)):
        evaluate(tmp_path / str(at), plan, lambda pair=pair: pair)
        lines = (tmp_path / str(at) / "samples.jsonl").read_text().splitlines()
        found.append([(each["arm"], each["text"], each["summary"]) for each in map(json.loads, lines)])
    assert found[0] == found[1]
    texts = [each[1] for each in found[0][:2]]
    asked = [list(task.messages) for task in plan.tasks[:2]]
    for one, other in zip(
        *(pair.score_batch(asked, texts, top=3) for pair in (remote, reference)), strict=True
    ):
        assert one.summary == other.summary
        assert [each.score for each in one.decisions] == pytest.approx(
            [each.score for each in other.decisions], rel=1e-2, abs=1e-3
        )
        for name in ("base_top", "reasoner_top"):
            mine, theirs = ([getattr(each, name) for each in trace.decisions] for trace in (one, other))
            assert [[each.token for each in top] for top in mine] == [
                [each.token for each in top] for top in theirs
            ]
    for top in (21, -1, "5"):
        with pytest.raises(RequestError, match=r"top: "):
            remote.score_batch(asked, texts, top=top)


def test_prompts_scores_and_arms(remote, reference):
    assert remote.prompter.render(CHATS[0]) == reference.prompter.render(CHATS[0])
    assert remote.prompter.completion_ids("So 3 + 4") == reference.prompter.completion_ids("So 3 + 4")
    rendered = remote.prompter.render(CHATS[0], tools=TOOLS)
    assert essence(remote.generate(rendered)) == essence(reference.generate(rendered))
    rendered = replace(rendered, stops=("=",))
    assert essence(remote.generate(rendered)) == essence(reference.generate(rendered))
    with pytest.raises(PromptError, match="prompt: 'stops' are texts"):
        remote.generate(replace(rendered, stops=(7,)))
    found, wanted = (pair.score(CHATS[0], "So 3 + 4 = 7.") for pair in (remote, reference))
    assert found.summary == wanted.summary
    assert [each.reasoner_token for each in found.decisions] == [
        each.reasoner_token for each in wanted.decisions
    ]
    for who in ("base", "reasoner"):
        one, other = (pair.alone(who).generate(CHATS[1]) for pair in (remote, reference))
        assert (one.text, one.trace) == (other.text, other.trace)


def test_two_hundred_at_sixteen_at_a_time(remote, reference):
    with ThreadPoolExecutor(16) as pool:
        found = list(
            pool.map(lambda at: remote.generate(CHATS[at % 16], temperature=0.5, seed=at // 16), range(200))
        )
    wanted = reference.generate_batch(
        [CHATS[at % 16] for at in range(200)], temperature=0.5, seed=[at // 16 for at in range(200)]
    )
    assert [essence(each) for each in found] == [essence(each) for each in wanted]


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"policy": {"threshold": -1}}, PolicyError, "threshold"),
        ({"policy": {"gates": [lambda view: True]}}, PolicyError, "callable"),
        ({"max_tokens": 0}, RequestError, "max_tokens"),
        ({"logprobs": 21}, RequestError, "logprobs: 21 is more than the 20"),
        ({"nonsense": 0}, RequestError, "nonsense"),
        ({"grammar": {"json": {"type": "no such type"}}}, GrammarError, "grammar"),
    ],
    ids=lambda given: given if isinstance(given, str) else None,
)
def test_bad_settings(remote, settings, error, said):
    with pytest.raises(error, match=said):
        remote.generate(CHATS[0], **settings)
    with pytest.raises(error, match=said):
        list(remote.stream(CHATS[0], **settings))
    assert remote.generate(CHATS[0], max_tokens=2).token_ids


@pytest.mark.parametrize(
    "prompt", ["", [], [10**9], [{"content": "no role"}], b"bytes", [3] * 2000], ids=repr
)
def test_bad_prompts(remote, prompt):
    with pytest.raises(PromptError):
        remote.generate(prompt)


def test_what_cannot_be_connected_to(server):
    with pytest.raises(RequestError, match="base_url"):
        load_pair(backend="remote")
    for address in ("ftp://x", "http://[::1", "http://127.0.0.1:99999", "http://127.0.0.1:abc", "http://", 5):
        with pytest.raises(RequestError, match="base_url"):
            load_pair(backend="remote", base_url=address)
    for key in ("a\nb", " spaced ", "\u00e9"):
        with pytest.raises(RequestError, match="api_key") as caught:
            load_pair(backend="remote", base_url=server.url, api_key=key)
        assert key.strip() not in str(caught.value)
    with pytest.raises(LoadError, match="api_key"):
        load_pair(backend="remote", base_url=server.url, api_key="wrong")
    with pytest.raises(LoadError, match="carries"):
        load_pair("other/base", backend="remote", base_url=server.url, api_key="sesame")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(EngineError, match="does not answer"):
        load_pair(backend="remote", base_url=nobody, max_retries=0)


def test_a_request_that_was_lost_is_sent_again(server):
    """Behind a proxy that drops every first attempt of a path."""
    seen = set()

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path not in seen:
                seen.add(self.path)
                self.send_error(503)
                return
            headers = {
                name: self.headers[name] for name in ("Authorization", "Content-Type") if self.headers[name]
            }
            said = httpx.request(
                self.command,
                server.url + self.path,
                content=body,
                headers=headers,
                timeout=60,
                trust_env=False,
            )
            self.send_response(said.status_code)
            self.end_headers()
            self.wfile.write(said.content)

        do_GET = do_POST = handle_any  # noqa: N815 - the library's names

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{proxy.server_address[1]}/v1"
        pair = load_pair(backend="remote", base_url=url, api_key="sesame")
        assert pair.generate(CHATS[0], max_tokens=5).token_ids
        assert len(seen) == 2
        pair.close()
        seen.clear()
        with pytest.raises(EngineError, match="503"):
            load_pair(backend="remote", base_url=url, api_key="sesame", max_retries=0)
        proxy.shutdown()


def test_the_chat_model(server, reference):
    settings = {"temperature": 0.6, "seed": 2, "trace": "full"}
    model = DelegatedChatModel(backend="remote", base_url=server.url, api_key="sesame", **settings)
    local = DelegatedChatModel(pair=reference, **settings)
    question = PROBLEMS[0].question
    found, wanted = model.invoke(question), local.invoke(question)
    assert found.content == wanted.content
    assert (
        found.response_metadata["delegation"]["summary"] == wanted.response_metadata["delegation"]["summary"]
    )
    assert found.usage_metadata == wanted.usage_metadata
    chunks = list(model.stream(question))
    assert "".join(each.content for each in chunks) == wanted.content
    assert [each.content for each in model.batch([question, question])] == [wanted.content] * 2
    assert asyncio.run(model.ainvoke(question)).content == wanted.content
    assert "sesame" not in repr(model)
    assert "sesame" not in str(model.to_json())


def test_the_chat_model_with_tools(server):
    model = DelegatedChatModel(backend="remote", base_url=server.url, api_key="sesame").bind_tools(TOOLS)
    answer = model.invoke(PROBLEMS[1].question)
    assert answer.tool_calls
    assert execute(answer.tool_calls[0]["name"], answer.tool_calls[0]["args"])
    form = DelegatedChatModel(backend="remote", base_url=server.url, api_key="sesame")
    assert isinstance(form.with_structured_output(SCHEMA, method="json_schema").invoke("3?")["n"], int)


def test_problems_are_solved_and_counted(server, remote):
    before = counted(server, "delegate_llm:tokens_total")
    answers = remote.generate_batch(CHATS)
    assert sum(grade(each, said.text) for each, said in zip(PROBLEMS, answers, strict=True)) >= 14
    assert counted(server, "delegate_llm:tokens_total") - before == sum(
        len(each.token_ids) for each in answers
    )


def counted(server, name):
    lines = httpx.get(f"{server.url}/metrics", trust_env=False).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_who_leaves_stops_the_engine(server, remote, reference):
    before = counted(server, "vllm:generation_tokens_total")

    def leave():
        if counted(server, "vllm:num_requests_running"):
            raise KeyboardInterrupt

    for chat in CHATS[:3]:
        stream = remote.stream(chat, ignore_eos=True, max_tokens=900)
        next(stream)
        stream.close()
    with pytest.raises(KeyboardInterrupt):
        remote.generate(CHATS[3], ignore_eos=True, max_tokens=900, on_step=leave)
    assert essence(remote.generate(CHATS[4])) == essence(reference.generate(CHATS[4]))
    assert counted(server, "vllm:num_requests_running") == 0
    written = counted(server, "vllm:generation_tokens_total") - before
    assert 4 < written < 2 * 900, "none of the four was written to its end"


def test_a_server_with_a_template_that_is_told_to_end_under_load(tmp_path):
    """All routes read its template; then nobody waits for what nobody writes any more, and it ends."""
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages[0]['content'] }}{{ ending }}")
    chosen = ("--chat-template", str(template), "--default-chat-template-kwargs", '{"ending": " ="}')
    with serving(tmp_path / "log", *chosen) as found:
        pair = load_pair(backend="remote", base_url=found.url, max_retries=0)
        client = found.client()
        chat = [{"role": "user", "content": "1 + 1"}]
        assert pair.prompter.render(chat) == pair.prompter.render("1 + 1 =")
        told = client.chat.completions.create(model=MODEL, messages=chat, max_tokens=1).usage.prompt_tokens
        assert told == len(pair.prompter.render(chat).base)

        def streamed():
            events = client.completions.create(
                model=MODEL, prompt=[5, 6], max_tokens=900, stream=True, extra_body={"ignore_eos": True}
            )
            return sum(1 for _ in events)

        def whole():
            return client.completions.create(
                model=MODEL, prompt=[5, 7], max_tokens=900, extra_body={"ignore_eos": True}
            )

        with ThreadPoolExecutor(6) as pool:
            calls = [pool.submit(each) for each in (streamed, whole) * 2]
            calls += [pool.submit(pair.generate, [5, 8], ignore_eos=True, max_tokens=900) for _ in range(2)]
            while counted(found, "vllm:num_requests_running") < len(calls):
                time.sleep(0.01)
            os.kill(found.process.pid, signal.SIGTERM)
            for each in calls:
                with pytest.raises((EngineError, openai.APIError)):
                    each.result(60)
        assert found.process.wait(60) is not None


def test_a_server_that_is_killed_under_load_and_started_again(tmp_path, reference):
    """Whoever waits gets an error of ours, at once; nobody an answer that is not one."""
    port = free_port()
    with serving(tmp_path / "log", port=port) as found:
        pair = load_pair(backend="remote", base_url=found.url, max_retries=1)
        streams = [pair.stream(chat, ignore_eos=True, max_tokens=900) for chat in CHATS[:4]]
        for each in streams:
            next(each)
        with ThreadPoolExecutor(4) as pool:
            whole = [pool.submit(pair.generate, chat, ignore_eos=True, max_tokens=900) for chat in CHATS[4:8]]
            os.killpg(found.process.pid, signal.SIGKILL)
            for each in whole:
                with pytest.raises(EngineError):
                    each.result(60)
        for each in streams:
            with pytest.raises(EngineError):
                list(each)
    with serving(tmp_path / "log", port=port):
        assert essence(pair.generate(CHATS[0])) == essence(reference.generate(CHATS[0]))
    pair.close()
    with pytest.raises(EngineError, match="closed"):
        pair.generate(CHATS[0])
