"""A connection of the gateway to PostgreSQL: opened on demand, opened again after a failure, bounded by a time-out.

A query can be cancelled only if the server answers. A server that is stopped, or unreachable behind a firewall, does
not. So the socket is shut down when the time is up, and all waits on it fail at once.
"""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
from psycopg import pq

from pipeline_platform.db import connect_async
from pipeline_platform.gateway.db_statement import StatementRunner

# The server has this long to end a statement by itself before the socket is shut down.
_GRACE_S = 0.3
_CONNECT_S_MAX = 2.0


class BoundedConnection:
    """One connection, for one task at a time."""

    def __init__(self, url: str, who: str, timeout_s: float, more: str = "") -> None:
        self._url = url
        self._who = who
        self._timeout_s = timeout_s
        self._more = more
        self._conn: psycopg.AsyncConnection[Any] | None = None

    @property
    def is_connected(self) -> bool:
        """False once the connection is known to be gone."""
        return self._conn is not None and not self._conn.closed

    async def connect(self) -> psycopg.AsyncConnection[Any]:
        """The connection, opened if there is none. Raises psycopg.OperationalError within 2 s."""
        if self._conn is None or self._conn.closed:
            self._conn = None
            try:
                async with asyncio.timeout(_CONNECT_S_MAX):
                    self._conn = await connect_async(
                        self._url,
                        self._who,
                        statement_timeout_s=self._timeout_s,
                        lock_timeout_s=self._timeout_s,
                        more=self._more,
                    )
            except TimeoutError as error:
                raise psycopg.OperationalError("the server does not answer") from error
        return self._conn

    @asynccontextmanager
    async def bounded(self) -> AsyncGenerator[psycopg.AsyncConnection[Any]]:
        """The connection, until the time-out. Raises psycopg errors."""
        conn = await self.connect()
        timer = asyncio.get_running_loop().call_later(self._timeout_s + _GRACE_S, _shut, conn)
        try:
            yield conn
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Close it."""
        if self._conn is not None:
            await self._conn.close()
            self._conn = None


class StatementConnection(BoundedConnection):
    """A connection for many single statements (see db_statement.py). `lost` is called when it breaks."""

    def __init__(
        self, url: str, who: str, timeout_s: float, more: str = "", lost: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(url, who, timeout_s, more)
        self._lost = lost
        self._runner: StatementRunner | None = None

    @property
    def is_connected(self) -> bool:
        """False from the moment that the server ended the connection, even while it is idle."""
        return super().is_connected and self._runner is not None and not self._runner.is_lost

    async def connect(self) -> psycopg.AsyncConnection[Any]:
        """The connection, opened if there is none or the server ended it. Raises psycopg.OperationalError."""
        if self._runner is not None and self._runner.is_lost:
            await self.close()
        conn = await super().connect()
        if self._runner is None:
            self._runner = StatementRunner(conn, self._lost)
        return conn

    async def close(self) -> None:
        """Close it."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None
        await super().close()

    async def run(self, statement: str, params: Sequence[str | bytes | None] = ()) -> pq.abc.PGresult | None:
        """Run one statement and return its result as text. Raises psycopg errors.

        params replace its %s: str is sent as text, bytes as binary.
        """
        await self.connect()
        runner = self._runner
        assert runner is not None
        timer = asyncio.get_running_loop().call_later(self._timeout_s + _GRACE_S, runner.abandon)
        try:
            return await runner.run(statement, params)
        finally:
            timer.cancel()


def _shut(conn: psycopg.AsyncConnection[Any]) -> None:
    if conn.closed:
        return
    # Use a copy of the descriptor: libpq keeps its own and reads the end of the stream there.
    # An OSError means that the server has reset the socket already.
    with socket.socket(fileno=os.dup(conn.fileno())) as copy, suppress(OSError):
        copy.shutdown(socket.SHUT_RDWR)
