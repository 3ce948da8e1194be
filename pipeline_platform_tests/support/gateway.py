"""A gateway process on real servers, one tenant with a key, and a client: what the gateway's tests share."""

import base64
import json
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
import psycopg

from pipeline_platform.local.services.process import free_port, log_tail, spawn, stop
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.environments import environment_of
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]
_ROOT = Path(__file__).parents[2]
_STOP_S = 30.0


class GatewayProcess:
    """The process; leaving the context ends it. `more`: settings by their lower-case names."""

    def __init__(self, settings: Settings, **more: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = settings.home / "logs" / f"gateway-{self.port}.log"
        self._started: subprocess.Popen[bytes] | None = None
        self._environment = environment_of(settings, **more)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started is not None:
            stop(self._started, signal.SIGTERM, _STOP_S)
        if error is not None:
            print(f"--- the end of the gateway's log\n{log_tail(self.log, 40)}")

    @property
    def process(self) -> psutil.Process:
        assert self._started is not None
        return psutil.Process(self._started.pid)

    def start(self, kill_point: str = "", route: str = "/readyz") -> Self:
        """Start it on the same port as before; returns once `route` is answered with success."""
        more = {"PIPELINE_KILL_POINT": kill_point} if kill_point else {}
        command = [sys.executable, "-m", "pipeline_platform.gateway", "--port", str(self.port)]
        self._started = spawn(command, log=self.log, cwd=_ROOT, env=self._environment | more)
        wait_for("the gateway to serve", lambda: self._answers(route))
        return self

    def exit_code(self) -> int:
        """Its exit code, once it has ended."""
        assert self._started is not None
        return self._started.wait(_STOP_S)

    def _answers(self, route: str) -> bool:
        assert self._started is not None
        assert self._started.poll() is None, f"the gateway ended: {log_tail(self.log)}"
        try:
            return httpx.get(self.url + route).is_success
        except httpx.TransportError:
            return False


class Gateway:
    """A running gateway as one tenant's client sees it, and its database as the operator does."""

    def __init__(self, process: GatewayProcess, conn: Conn) -> None:
        self.process = process
        self.port = process.port
        self.conn = conn
        tenant = add_tenant(conn, f"tenant {uuid.uuid4()}")
        self.tenant_id, self.key = tenant.tenant_id, tenant.write_key
        self.client = httpx.Client(base_url=process.url, timeout=15)

    def post(self, path: str, body: bytes | dict[str, Any], key: str | None = None, **headers: str) -> httpx.Response:
        """One request; the names of headers are written with underscores."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path, content=content, headers=named, auth=(self.key if key is None else key, ""))

    def batch(self, *events: dict[str, Any], **envelope: Any) -> httpx.Response:
        return self.post("/v1/batch", {"batch": list(events), **envelope})

    def count(self, query: str) -> int:
        row = self.conn.execute(query.encode()).fetchone()
        assert row
        return row[0]

    @property
    def stored(self) -> int:
        return self.count("SELECT count(*) FROM queue.events")

    @property
    def quarantined(self) -> int:
        return self.count("SELECT count(*) FROM queue.quarantine")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=15)

    def raw_post(self, path: str, body: bytes, length: int | None = None) -> socket.socket:
        """The connection after a request whose body may be shorter than it says."""
        connection = self.connect()
        basic = base64.b64encode(f"{self.key}:".encode()).decode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {basic}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body)
        return connection

    def occupy(self, committers: int = 2) -> list[Future[httpx.Response]]:
        """One request for each committer, while commits are blocked; what comes next shares another commit."""
        answers: list[Future[httpx.Response]] = []
        for number in range(committers):
            answers += in_parallel([lambda: self.batch(event())])
            wait_for("a committer to wait", lambda number=number: len(self.waiting_committers()) > number)
        return answers

    def waiting_committers(self) -> list[int]:
        """The server processes of committers that wait for a lock."""
        found = self.conn.execute(
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() "
            "AND application_name ~ 'gateway [0-9]'"
        )
        return [pid for (pid,) in found]


Start = Callable[..., Gateway]


class Blocked:
    """Holds the lock of this hour and the next, so that commits wait until `release`."""

    def __init__(self, url: str) -> None:
        self.conn = psycopg.connect(url)
        self.conn.execute(
            "SELECT pg_advisory_xact_lock(queue.hour_lock(hour)) FROM generate_series("
            "date_trunc('hour', clock_timestamp(), 'UTC'), clock_timestamp() + interval '1 hour', "
            "interval '1 hour') AS hour"
        )

    def release(self) -> None:
        self.conn.rollback()


def event(message_id: str | None = None, **fields: Any) -> dict[str, Any]:
    """A valid event; without a messageId with one of its own."""
    return {"type": "track", "event": "Clicked", "userId": "u", "messageId": message_id or str(uuid.uuid4())} | fields


def in_parallel(calls: list[Callable[[], httpx.Response]]) -> list[Future[httpx.Response]]:
    """All calls at once, each in a thread."""
    pool = ThreadPoolExecutor(len(calls))
    futures = [pool.submit(call) for call in calls]
    pool.shutdown(wait=False)
    return futures


def everything(connection: socket.socket) -> bytes:
    """All until the other side closes."""
    received = b""
    with connection:
        while piece := connection.recv(65_536):
            received += piece
    return received


def assert_refused(answer: httpx.Response, status: int, code: str) -> None:
    """The whole shape of a refusal."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.json()["success"] is False
    assert answer.json()["message"]
    assert (status == 429) == ("retry-after" in answer.headers)
    if status == 429:
        assert 1 <= int(answer.headers["retry-after"]) <= 300
