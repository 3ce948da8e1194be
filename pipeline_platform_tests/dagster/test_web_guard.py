"""Dagster's web server obeys its own pages and programs of this machine, and no page of another site."""

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from pipeline_platform_tests.support.dagster_web import LAUNCH, DagsterWeb

_JSON = {"Content-Type": "application/json"}
_REPORT = "/report_asset_materialization/forged"


@pytest.fixture(scope="module")
def web() -> Iterator[DagsterWeb]:
    with tempfile.TemporaryDirectory() as home, DagsterWeb(Path(home)) as running:
        yield running


@pytest.mark.parametrize("query", ["query", "%71uery", "x=1&query"])
@pytest.mark.parametrize("accept", ["*/*", "text/html"])
def test_a_mutation_in_an_address_is_refused(web: DagsterWeb, query: str, accept: str) -> None:
    answer = httpx.get(f"{web.url}/graphql?{query}={quote(LAUNCH)}", headers={"Accept": accept})
    assert answer.status_code == 405
    assert web.runs() == 0


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (421, {"Host": "evil.example"}),
        (421, {"Host": "evil.example", "Origin": "http://evil.example"}),
        (421, {"Host": "127.0.0.1.evil.example:3000"}),
        (421, {"Host": "localhost@evil.example"}),
        (421, {"Host": "[broken"}),
        (403, {"Origin": "http://evil.example"}),
        (403, {"Origin": "null"}),
        (403, {"Origin": "http://localhost:1"}),
        (403, {"Sec-Fetch-Site": "cross-site"}),
        (403, {"Sec-Fetch-Site": "same-site"}),
        (415, {"Content-Type": "text/plain"}),
        (415, {"Content-Type": "text/plain; application/json"}),
        (415, {"Content-Type": "application/x-www-form-urlencoded"}),
        (415, {"Content-Type": "application/graphql"}),
        (415, {"Content-Type": ""}),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/graphql", _REPORT])
def test_what_a_page_of_another_site_can_send_is_refused(
    web: DagsterWeb, path: str, status: int, headers: dict[str, str]
) -> None:
    answer = httpx.post(f"{web.url}{path}", json={"query": LAUNCH}, headers=_JSON | headers)
    assert answer.status_code == status, answer.text
    assert web.runs() == 0
    assert web.forged() == 0


def test_two_origins_are_as_good_as_the_worse(web: DagsterWeb) -> None:
    headers = [*_JSON.items(), ("Origin", web.url), ("Origin", "http://evil.example")]
    assert httpx.post(f"{web.url}/graphql", json={"query": LAUNCH}, headers=headers).status_code == 403


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]"])
def test_the_ui_and_programs_are_answered(web: DagsterWeb, name: str) -> None:
    host = f"{name}:{web.port}"
    headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    question = {"query": "{version}"}
    assert httpx.post(f"{web.url}/graphql", json=question, headers=headers).json()["data"]["version"]
    assert httpx.post(f"{web.url}/graphql", json=question, headers={"Host": host}).json()["data"]["version"]
    page = httpx.get(f"{web.url}/runs", headers={"Host": host, "Sec-Fetch-Site": "cross-site"})
    assert page.status_code == 200
    assert page.headers["X-Frame-Options"] == "SAMEORIGIN"


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}", b"101"),
        ("127.0.0.1:{port}", None, b"101"),
        ("127.0.0.1:{port}", "http://evil.example", b"403"),
        ("evil.example", "http://evil.example", b"403"),
    ],
)
def test_a_websocket_of_another_site_is_refused(web: DagsterWeb, host: str, origin: str | None, status: bytes) -> None:
    lines = ["GET /graphql HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Protocol: graphql-ws", *([f"Origin: {origin}"] if origin else [])]
    with socket.create_connection(("127.0.0.1", web.port), timeout=30) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").format(port=web.port).encode())
        assert connection.recv(4096).split()[1] == status


def test_a_launch_by_a_program_starts_a_run(web: DagsterWeb) -> None:
    """The control of the others: the same mutation is obeyed where it is asked as it should be."""
    assert web.ask(LAUNCH)["launchRun"]["__typename"] == "LaunchRunSuccess"
    assert web.runs() == 1
    assert httpx.post(f"{web.url}{_REPORT}", json={}, headers=_JSON).status_code == 200
    assert web.forged() == 1
