"""Who may ask: names, origins, content types and keys, over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played import Played, offer_of, playing

from delegate_llm import Pair
from delegate_llm.playground.guard import Guard, names_of
from delegate_llm.serving.addresses import is_loopback

KEY = "open sesame"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def locked(tiny: Pair) -> Iterator[Played]:
    with playing(offer_of(lambda: tiny), key=KEY) as found:
        yield found


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1", "a@127"]
)
@pytest.mark.parametrize("path", ["/", "/api/pairs", "/assets/view.js"])
def test_other_names_are_refused(played: Played, host: str, path: str) -> None:
    response = played.client.get(path, headers={"host": host})
    assert response.status_code == 421
    assert "pairs" not in response.json()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:9000", "[::1]:7860"])
def test_a_tunnel_may_have_another_port(played: Played, host: str) -> None:
    assert played.client.get("/api/pairs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (202, {}),
        (202, {"origin": "http://localhost:9", "host": "localhost:9", "sec-fetch-site": "same-origin"}),
        (202, {"sec-fetch-site": "none"}),
        (202, {"content-type": "application/json; charset=utf-8"}),
        (403, {"origin": "http://evil.example"}),
        (403, {"origin": "null"}),
        (403, {"origin": "http://localhost:8", "host": "localhost:9"}),
        (403, {"sec-fetch-site": "cross-site"}),
        (403, {"sec-fetch-site": "same-site"}),
        (415, {"content-type": "text/plain"}),
        (415, {"content-type": "application/x-www-form-urlencoded"}),
    ],
)
@pytest.mark.parametrize("path", ["/api/load"])
def test_other_sites_are_refused(played: Played, path: str, status: int, headers: dict[str, str]) -> None:
    response = played.client.post(path, content='{"pair": 0}', headers={**JSON, **headers})
    assert response.status_code == status


def test_no_site_is_told_that_it_may_read(played: Played) -> None:
    asked = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    response = played.client.options("/api/ask", headers=asked)
    assert response.status_code == 403
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x"])
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/pairs"), ("POST", "/api/load"), ("POST", "/api/ask")]
)
def test_without_the_key_there_is_nothing(locked: Played, method: str, path: str, given: str | None) -> None:
    headers = JSON if given is None else {**JSON, "authorization": given}
    response = locked.client.request(method, path, headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["message"].startswith("api_key: ")
    assert response.headers["www-authenticate"] == "Bearer"


def test_with_the_key_there_is_everything(locked: Played) -> None:
    assert locked.client.get("/").status_code == 200
    headers = {"authorization": f"Bearer {KEY}"}
    assert locked.client.get("/api/pairs", headers=headers).json()["pairs"]


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.7", False),
        ("example.org", False),
    ],
)
def test_what_is_this_machine_alone(host: str, local: bool) -> None:
    assert is_loopback(host) is local
    names = names_of(host)
    assert (names is None) == (host in ("0.0.0.0", "::"))
    assert names is None or ("localhost" in names) is local


@pytest.mark.parametrize(
    ("host", "ours"),
    [("10.1.2.3:80", True), ("[fe80::1]", True), ("localhost", True), ("evil.example", False), ("", False)],
)
def test_everywhere_means_any_address_but_no_other_name(host: str, ours: bool) -> None:
    guard = Guard(_nothing, names=names_of("0.0.0.0"), api_key=None)
    assert (guard._refusal("GET", "/", {"host": host}) is None) is ours


OURS = st.sampled_from(["localhost", "127.0.0.1", "[::1]", "LocalHost:80", ""])
LITTER = st.text("@/?#:[]. \\x0a", max_size=3)


@given(host=st.tuples(LITTER, OURS, LITTER).map("".join), origin=st.text(max_size=30) | st.none())
def test_no_header_gets_past_the_guard(host: str, origin: str | None) -> None:
    guard = Guard(_nothing, names=names_of("localhost"), api_key=None)
    headers = {"host": host, **JSON, **({} if origin is None else {"origin": origin})}
    refused = guard._refusal("POST", "/api/ask", headers)
    assert refused is None or refused[0] in (HTTPStatus.MISDIRECTED_REQUEST, HTTPStatus.FORBIDDEN)
    if refused is None:
        assert re.fullmatch(r"(localhost|127\.0\.0\.1|\[::1\])(:\d*)?", host.lower())
        assert origin is None or origin.lower().endswith(f"//{host.lower()}")


async def _nothing(*_: Any) -> None:
    """An app that is never reached."""
