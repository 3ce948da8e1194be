"""Servers of a test's own, to be killed, stopped, frozen and started again on the same port."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg

from pipeline_platform import schema
from pipeline_platform.local.services import Server, ensure_database, start_postgres, start_redis
from pipeline_platform.local.services.process import free_port


class OwnServer:
    """One embedded server with a home of its own."""

    def __init__(self, start: Callable[[Path, int], Server], home: Path) -> None:
        self._start = start
        self._home = home
        self._port = free_port()
        self._server = start(home, self._port)

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def pid(self) -> int:
        return self._server.process.pid

    def start(self) -> None:
        """Start it again; returns when it serves."""
        self._server = self._start(self._home, self._port)

    def stop(self) -> None:
        """An orderly stop: connections are ended."""
        self._server.stop()

    def kill(self) -> None:
        """SIGKILL; returns when it is dead."""
        self._server.process.kill()
        self._server.stop()

    def freeze(self) -> None:
        """SIGSTOP: it holds its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)


def own_postgres(home: Path) -> OwnServer:
    return OwnServer(
        lambda home, port: start_postgres(home, shared_buffers="64MB", max_wal_size="512MB", port=port), home
    )


def make_url(url: str, database: str) -> str:
    """`url` with another database at its end."""
    return f"{url.rpartition('/')[0]}/{database}"


def fresh_database(server: OwnServer, name: str) -> str:
    """The URL of a new, migrated database."""
    ensure_database(server.url, name)
    url = make_url(server.url, name)
    schema.migrate(url)
    return url


def own_redis(home: Path) -> OwnServer:
    return OwnServer(lambda home, port: start_redis(home, port=port), home)


def kill_backend(conn: psycopg.Connection[object], who: str) -> None:
    """SIGKILL to the server process behind one connection of `who`: PostgreSQL then restarts all of them."""
    row = conn.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE %s",
        (f"%{who}%",),
    ).fetchone()
    assert row, f"nobody is connected as {who}"
    os.kill(int(str(row[0])), signal.SIGKILL)
