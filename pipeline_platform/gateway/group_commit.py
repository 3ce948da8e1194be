"""Commits requests in groups: those that arrive while a commit is under way share the next one.

One call of queue.accept is one statement, one transaction and one fsync for all waiting requests. A request is
answered only after the call has returned. If it fails, or its outcome is unknown, all of its requests get "not now".
Bad data in one request does not affect the others: the requests are then written one by one, and the bad one event by
event. When commits fail, the log names the error and `GET /readyz` says what is missing.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

import psycopg
from psycopg import pq

from pipeline_platform.backoff import jittered_s
from pipeline_platform.errors import is_bad_data
from pipeline_platform.event.types import Lane
from pipeline_platform.gateway.background import Background
from pipeline_platform.gateway.commit_health import CommitHealth
from pipeline_platform.gateway.db_connection import BoundedConnection, StatementConnection
from pipeline_platform.gateway.isolation import Isolation, Late
from pipeline_platform.gateway.pending import Pending, Waiting
from pipeline_platform.gateway.protocol import Judged
from pipeline_platform.gateway.responses import TryLaterError
from pipeline_platform.kill_points import reach
from pipeline_platform.queue.batches import ACCEPT_SECONDS_MAX, accept
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.metrics.processes import GatewayNumbers

_LOG = logging.getLogger(__name__)
_RETRY_S, _RETRY_S_MAX = 0.05, 1.0


class GroupCommit:
    """The committers of one gateway process. `committed` is called after each commit that stored events."""

    def __init__(self, settings: Settings, url: str, committed: Callable[[], None], numbers: GatewayNumbers) -> None:
        self._committed = committed
        self._numbers = numbers
        self._pending = Pending(settings.commit_events_max, settings.pending_events_max)
        self._health = CommitHealth()
        more = f"-c transaction_timeout={int(ACCEPT_SECONDS_MAX * 1000)}"
        self._connections = [
            StatementConnection(url, f"gateway {number}", settings.answer_timeout_s, more, self._pending.wake.set)
            for number in range(settings.committers)
        ]
        self._isolation = Isolation(BoundedConnection(url, "gateway careful", settings.answer_timeout_s, more))

    @property
    def trouble(self) -> str:
        """Why events cannot be committed now, as far as the committers know. Empty if they know no reason."""
        return self._health.trouble

    def start(self, background: Background) -> None:
        """Connect and commit in the background until the background is stopped."""
        for number, connection in enumerate(self._connections):
            background.start(f"committer {number}", self._run(connection))

    async def stop(self) -> None:
        """Called when the background is stopped. Requests still waiting get "not now"."""
        self._pending.refuse_all(_stopping())
        for connection in self._connections:
            await connection.close()
        await self._isolation.close()

    async def commit(self, lane: Lane, judged: Judged) -> list[Late]:
        """Wait until all events are durable. Returns those that only the database could reject.

        Raises TryLaterError if they are not durable or it is unknown. Cancelling ends the wait, not the commit.
        """
        if self._health.is_down:
            raise TryLaterError("database_down", "events cannot be stored now: send this again", 1.0)
        return await self._pending.wait(lane, judged)

    async def _run(self, connection: StatementConnection) -> None:
        failures = 0
        while True:
            try:
                await connection.connect()
            except psycopg.Error as error:
                failures += 1
                _LOG.log(logging.WARNING if failures == 1 else logging.DEBUG, "no database: %s", error)
                self._health.not_connected(error)
                if self._health.is_down:
                    self._pending.refuse_all(TryLaterError("database_down", "events cannot be stored now", 1.0))
                await asyncio.sleep(jittered_s(failures, _RETRY_S, _RETRY_S_MAX))
                continue
            failures = 0
            self._health.connected()
            try:
                await self._commit_while_connected(connection)
            finally:
                self._health.disconnected()

    async def _commit_while_connected(self, connection: StatementConnection) -> None:
        while group := await self._next_group(connection):
            try:
                await self._commit_group(connection, group)
            except psycopg.Error as error:
                _LOG.warning(
                    "a commit of %d requests failed, and their clients were told to send again: %s", len(group), error
                )
                self._health.failed(error)
                _refuse(group, TryLaterError("not_stored", "the events could not be stored: send this again", 1.0))
            finally:
                # Requests are still unanswered here only if this task is cancelled.
                _refuse(group, _stopping())

    async def _next_group(self, connection: StatementConnection) -> list[Waiting]:
        """Wait for the next requests to commit. Empty if the connection was lost meanwhile."""
        while connection.is_connected:
            group = self._pending.take_group()
            if group:
                return group
            self._pending.wake.clear()
            await self._pending.wake.wait()
        return []

    async def _commit_group(self, connection: StatementConnection, group: list[Waiting]) -> None:
        accepted = [event for waiting in group for event in waiting.judged.accepted]
        rejected = [event for waiting in group for event in waiting.judged.rejected]
        reach("gateway.before_commit")
        begin = time.perf_counter()
        try:
            result = await accept(connection.run, group[0].lane, accepted, rejected)
        except Exception as error:
            if _is_not_the_datas(error):
                raise
            _LOG.warning("bad data in a commit of %d requests, writing them one by one: %s", len(group), error)
            await self._commit_one_by_one(group)
            return
        reach("gateway.after_commit")
        self._health.committed()
        for waiting in group:
            waiting.resolve([])
        if accepted:
            self._committed()
        self._done(group, result, time.perf_counter() - begin)

    def _done(self, group: list[Waiting], result: pq.abc.PGresult | None, seconds: float) -> None:
        """Called after each commit that stored a whole group. result: its batch_id and received_at, as text."""
        self._numbers.committed(sum(waiting.events for waiting in group), seconds)

    async def _commit_one_by_one(self, group: list[Waiting]) -> None:
        for waiting in group:
            try:
                late = await self._isolation.accept(waiting.lane, waiting.judged)
            except Exception as error:
                if _is_not_the_datas(error):
                    raise
                _LOG.exception("a request cannot be stored, not even in quarantine")
                waiting.refuse(TryLaterError("not_stored", "the events could not be stored", 30.0))
            else:
                waiting.resolve(late)
                self._committed()


def _is_not_the_datas(error: Exception) -> bool:
    """Whether a commit would fail with any data. Errors that are not from PostgreSQL come from encoding the data."""
    return isinstance(error, psycopg.Error) and not is_bad_data(error)


def _refuse(group: Sequence[Waiting], error: TryLaterError) -> None:
    for waiting in group:
        waiting.refuse(error)


def _stopping() -> TryLaterError:
    return TryLaterError("stopping", "the gateway is stopping: send this again", 1.0)
