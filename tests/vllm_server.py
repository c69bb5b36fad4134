"""Real servers on loopback: `delegate-llm serve` in a process group of its own, with the shipped pair."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai
import pytest

PATIENCE_S = 240.0  # vLLM starts in 15 s where nobody else computes
SMALL = ("--kv-cache-memory-bytes", str(128 << 20), "--generation-config", "vllm")
MODEL = "tiny-base+tiny-reasoner"


class Server(NamedTuple):
    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def client(self, key: str = "any", **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=120, **options)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def serving(log: Path, *options: str, port: int | None = None, **variables: str) -> Iterator[Server]:
    """A server, ready."""
    port = free_port() if port is None else port
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as written:
        process = subprocess.Popen(
            command(*SMALL, "--port", str(port), *options),
            env=alone(**variables),
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(url, log, process)
    try:
        wait_until_ready(server)
        yield server
    finally:
        stop(process)


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "delegate_llm", "serve", *options]


def alone(**variables: str) -> dict[str, str]:
    """An environment without keys, and without a word to anyone."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("VLLM", "LANG"))}
    return {
        **kept,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # others may have been given the first core, too
        "OMP_NUM_THREADS": "1",  # tiny models lose time to more
        **variables,
    }


def wait_until_ready(server: Server) -> None:
    end = time.monotonic() + PATIENCE_S
    with httpx.Client(trust_env=False) as client:
        while time.monotonic() < end and server.process.poll() is None:
            with suppress(httpx.TransportError):
                if client.get(f"{server.url}/health").is_success:
                    return
            time.sleep(0.2)
    pytest.fail(f"the server did not come up:\n{server.said()[-4000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with suppress(ProcessLookupError):  # its engine may still be on its way out
        os.killpg(process.pid, signal.SIGKILL)
