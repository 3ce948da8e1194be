"""Checks every second whether events can be accepted: commits succeed, the hour is open, there is room.

`GET /readyz` returns `missing`. `check` refuses requests while the queue or the disk is full, before they would fail
half-way.
"""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.disk import room_under
from pipeline_platform.gateway.db_connection import BoundedConnection
from pipeline_platform.gateway.responses import TryLaterError
from pipeline_platform.kill_points import reach
from pipeline_platform.settings import Settings

_LOG = logging.getLogger(__name__)
_SQL = queries("gateway") | queries("prerequisites")
_EVERY_S = 1.0
# Counting a long queue is slow. It takes at most this share of the time.
_COUNTING_SHARE = 0.1
_WAIT_S = 10.0
_PROVE_EVERY_S = 5.0


class Readiness:
    """The result of the last check. trouble: what the committers report."""

    def __init__(
        self, settings: Settings, connection: BoundedConnection, trouble: Callable[[], str] = lambda: ""
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._trouble = trouble
        self._proved_at = float("-inf")
        self._full: TryLaterError | None = None
        self._is_unknown = False
        self.missing: list[str] = ["the first look at the database"]

    def check(self) -> None:
        """Raises TryLaterError while there is no room for more events."""
        if self._full is not None:
            raise self._full

    async def run(self) -> None:
        """Check forever."""
        while True:
            reach("gateway.readiness")
            started = monotonic()
            self.missing, self._full = await self._look()
            took_s = monotonic() - started
            await asyncio.sleep(max(_EVERY_S, took_s / _COUNTING_SHARE))

    async def _look(self) -> tuple[list[str], TryLaterError | None]:
        full, unknown = self._disk()
        try:
            async with self._connection.bounded() as conn:
                await self._prove_commit(conn)
                await conn.execute(_SQL["open_hour"])
                row = await (await conn.execute(_SQL["waiting_events"])).fetchone()
        except psycopg.Error as error:
            self._proved_at = float("-inf")
            if not self.missing:
                _LOG.warning("the database cannot be used: %s", error)
            # Keep the last known queue-full state while the database is unreachable.
            return [_why(error)], full or self._full
        waiting = row[0] if row else 0
        if full is None and waiting >= self._settings.queue_events_max:
            full = TryLaterError("queue_full", f"{waiting} events wait already: send this again later", _WAIT_S)
        return [said for said in (str(full or ""), unknown, self._trouble()) if said], full

    async def _prove_commit(self, conn: psycopg.AsyncConnection[Any]) -> None:
        """Commit something. A server may answer and still not commit: in recovery, read only, with a full disk."""
        if monotonic() - self._proved_at >= _PROVE_EVERY_S:
            await conn.execute(_SQL["prove_commit"], ("gateway",))
            self._proved_at = monotonic()

    def _disk(self) -> tuple[TryLaterError | None, str]:
        """Why no events are accepted, and why the disk cannot be looked at. Then events are accepted."""
        try:
            free = room_under(self._settings.home).free
        except OSError as error:
            unknown = f"the disk of the home cannot be looked at: {error.strerror}"
            if not self._is_unknown:
                _LOG.warning("%s: see PIPELINE_HOME", unknown)
            self._is_unknown = True
            return None, unknown
        self._is_unknown = False
        if free >= self._settings.disk_free_bytes_min:
            return None, ""
        return TryLaterError("disk_full", "there is too little room on the disk: send this again later", _WAIT_S), ""


def _why(error: psycopg.Error) -> str:
    if isinstance(
        error, psycopg.errors.UndefinedFunction | psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName
    ):
        return "the schema: run pipeline-platform migrate"
    return f"the database: {error.diag.message_primary or error}"
