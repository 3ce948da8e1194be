"""The gateway's sockets and its process: slow clients, too many of them, health, stopping, dying."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress

import httpx
import pytest

from pipeline_platform.gateway.app import make_app, make_gateway
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.gateway import (
    Blocked,
    Conn,
    Gateway,
    GatewayProcess,
    Start,
    event,
    everything,
)
from pipeline_platform_tests.support.waiting import wait_for

# Sockets


def test_slow_bodies_and_silent_connections_are_cut_off(start: Start) -> None:
    gateway = start(body_timeout_s="0.5")
    silent = [gateway.connect() for _ in range(20)]
    half_head = [gateway.connect() for _ in range(20)]
    for connection in half_head:
        connection.sendall(b"POST /v1/batch HTTP/1.1\r\nHost: x\r\n")
    slow = [gateway.raw_post("/v1/batch", b'{"batch"', length=1_000) for _ in range(20)]
    assert gateway.batch(event()).status_code == 200
    assert [everything(connection) for connection in silent + half_head] == [b""] * 40
    for connection in slow:
        answer = everything(connection)
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"body_too_slow" in answer
        assert b"retry-after: " in answer
    assert gateway.batch(event()).status_code == 200


def test_heads_are_bounded(gateway: Gateway) -> None:
    connection = gateway.connect()
    connection.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 70_000)
    answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"invalid_http" in answer
    assert gateway.batch(event()).status_code == 200


def test_what_is_no_http(gateway: Gateway) -> None:
    connection = gateway.connect()
    connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")
    answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"invalid_http" in answer


def test_connections_are_bounded(start: Start) -> None:
    gateway = start(connections_max="5")
    held = [gateway.connect() for _ in range(5)]
    with gateway.connect() as connection:
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b'"busy"' in answer
    for connection in held:
        connection.close()
    wait_for("a free place", lambda: served(gateway))


def served(gateway: Gateway) -> bool:
    try:
        return gateway.batch(event()).status_code == 200
    except httpx.TransportError:
        return False


# The process


def test_health(gateway: Gateway, settings: Settings, empty_database_url: str) -> None:
    assert gateway.client.get("/healthz").status_code == 200
    assert gateway.client.get("/readyz").json() == {"ready": True, "missing": []}
    with GatewayProcess(settings.model_copy(update={"database_url": empty_database_url})) as process:
        process.start(route="/healthz")
        missing = wait_for("the first look", lambda: "migrate" in httpx.get(process.url + "/readyz").text)
        assert missing
        assert httpx.get(process.url + "/readyz").status_code == 503


def test_sigterm_answers_what_is_in_hand(gateway: Gateway, block: Callable[[], Blocked]) -> None:
    idle = gateway.connect()
    blocked = block()
    answers = gateway.occupy()
    gateway.process.process.terminate()
    assert everything(idle) == b""
    blocked.release()
    assert {answer.result().status_code for answer in answers} == {200}
    assert gateway.stored == 2
    assert gateway.process.exit_code() == 0


@pytest.mark.parametrize(("kill_point", "stored"), [("gateway.before_commit", 0), ("gateway.after_commit", 1)])
def test_killed_around_the_commit_nothing_is_acknowledged(start: Start, kill_point: str, stored: int) -> None:
    gateway = start(kill_point)
    with pytest.raises(httpx.TransportError):
        gateway.batch(event("m"))
    assert gateway.process.exit_code() == -signal.SIGKILL
    assert gateway.stored == stored
    gateway.process.start()
    assert gateway.batch(event("m")).status_code == 200
    assert gateway.count("SELECT count(DISTINCT event_id) FROM queue.events") == 1


@pytest.mark.parametrize("place", ["gateway.keys", "gateway.readiness", "gateway.notifier", "gateway.before_commit"])
def test_a_background_task_that_ends_ends_the_process(settings: Settings, conn: Conn, place: str) -> None:
    with GatewayProcess(settings) as process:
        gateway = Gateway(process, conn)
        with suppress(AssertionError):
            # It may end before it serves.
            process.start(f"{place}:raise", route="/healthz")
        with suppress(httpx.TransportError):
            # Not answered where the process ended before.
            answer = gateway.batch(event())
            assert answer.status_code in (200, 429)
            assert gateway.stored == (answer.status_code == 200)
        assert process.exit_code() == 1
        log = process.log.read_text()
        assert "the background task" in log
        assert f"InjectedError: {place}" in log
        process.start()
        assert gateway.batch(event()).status_code == 200
        gateway.client.close()


async def _end() -> None:
    raise ZeroDivisionError


def test_readyz_names_the_task_that_ended() -> None:
    gateway = make_gateway(Settings(), "postgresql://nowhere")
    gateway.ingest.readiness.missing = []

    async def ask() -> httpx.Response:
        gateway.background.start("of this test", _end())
        async with asyncio.timeout(10):
            while not gateway.background.ended:
                await asyncio.sleep(0)
        transport = httpx.ASGITransport(make_app(gateway))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.get("/readyz")

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["missing"]) == (503, ["the background task of this test"])


def test_wrong_settings_end_it_with_two(settings: Settings) -> None:
    with GatewayProcess(settings.model_copy(update={"database_url": ""})) as process:
        with pytest.raises(AssertionError, match="PIPELINE_DATABASE_URL is empty"):
            process.start()
        assert process.exit_code() == 2
