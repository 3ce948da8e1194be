"""Commits requests in groups: those that arrive while a commit is under way share the next one.

One call of queue.accept is one statement, one transaction and one fsync for all waiting requests. A request is
answered only after the call has returned. If it fails, or its outcome is unknown, all of its requests get "not now".
Bad data in one request does not affect the others: the requests are then written one by one, and the bad one event by
event. When commits fail, the log names the error and `GET /readyz` says what is missing.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from psycopg import pq

from pipeline_platform.backoff import jittered_s
from pipeline_platform.errors import is_bad_data
from pipeline_platform.event.types import Lane
from pipeline_platform.gateway.background import Background
from pipeline_platform.gateway.db_connection import BoundedConnection, StatementConnection
from pipeline_platform.gateway.isolation import Late, accept_carefully
from pipeline_platform.gateway.protocol import Judged
from pipeline_platform.gateway.responses import TryLaterError
from pipeline_platform.kill_points import reach
from pipeline_platform.queue.batches import ACCEPT_SECONDS_MAX, accept
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.metrics.processes import GatewayNumbers

_LOG = logging.getLogger(__name__)
_RETRY_S, _RETRY_S_MAX = 0.05, 1.0
# After this time without another commit, a failed commit no longer counts as trouble.
_TROUBLE_S = 10.0


@dataclass(slots=True)
class Waiting:
    """A request that waits for its commit."""

    lane: Lane
    judged: Judged
    events: int
    done: asyncio.Future[list[Late]]


class GroupCommit:
    """The committers of one gateway process. `committed` is called after each commit that stored events."""

    def __init__(self, settings: Settings, url: str, committed: Callable[[], None], numbers: GatewayNumbers) -> None:
        self._events_max = settings.commit_events_max
        self._pending_max = settings.pending_events_max
        self._committed = committed
        self._numbers = numbers
        self._pending: deque[Waiting] = deque()
        self._events_in_hand = 0
        self._wake = asyncio.Event()
        self._connected = 0
        self._tried = False
        self._failed_at = float("-inf")
        self._failure = ""
        more = f"-c transaction_timeout={int(ACCEPT_SECONDS_MAX * 1000)}"
        self._connections = [
            StatementConnection(url, f"gateway {number}", settings.answer_timeout_s, more, self._wake.set)
            for number in range(settings.committers)
        ]
        self._careful = BoundedConnection(url, "gateway careful", settings.answer_timeout_s, more)
        self._careful_turn = asyncio.Lock()

    @property
    def trouble(self) -> str:
        """Why events cannot be committed now, as far as the committers know. Empty if they know no reason."""
        is_recent = time.monotonic() - self._failed_at < _TROUBLE_S
        return self._failure if is_recent or (self._tried and not self._connected) else ""

    def start(self, background: Background) -> None:
        """Connect and commit in the background until the background is stopped."""
        for number, connection in enumerate(self._connections):
            background.start(f"committer {number}", self._run(connection))

    async def stop(self) -> None:
        """Called when the background is stopped. Requests still waiting get "not now"."""
        _refuse(list(self._pending), TryLaterError("stopping", "the gateway is stopping: send this again", 1.0))
        for connection in (*self._connections, self._careful):
            await connection.close()

    async def commit(self, lane: Lane, judged: Judged) -> list[Late]:
        """Wait until all events are durable. Returns those that only the database could reject.

        Raises TryLaterError if they are not durable or it is unknown. Cancelling ends the wait, not the commit.
        """
        events = len(judged.accepted) + len(judged.rejected)
        if self._tried and not self._connected:
            raise TryLaterError("database_down", "events cannot be stored now: send this again", 1.0)
        if self._events_in_hand and self._events_in_hand + events > self._pending_max:
            raise TryLaterError("busy", "too many events wait to be stored: send this again", 1.0)
        done: asyncio.Future[list[Late]] = asyncio.get_running_loop().create_future()
        self._pending.append(Waiting(lane, judged, events, done))
        self._events_in_hand += events
        self._wake.set()
        try:
            return await done
        finally:
            self._events_in_hand -= events

    async def _run(self, connection: StatementConnection) -> None:
        failures = 0
        while True:
            try:
                await connection.connect()
            except psycopg.Error as error:
                failures += 1
                _LOG.log(logging.WARNING if failures == 1 else logging.DEBUG, "no database: %s", error)
                self._tried = True
                if not self._connected:
                    self._failure = f"a connection that commits: {error}"
                    _refuse(self._take_all(), TryLaterError("database_down", "events cannot be stored now", 1.0))
                await asyncio.sleep(jittered_s(failures, _RETRY_S, _RETRY_S_MAX))
                continue
            failures = 0
            self._failed_at = float("-inf")
            self._connected += 1
            try:
                await self._commit_while_connected(connection)
            finally:
                self._connected -= 1

    async def _commit_while_connected(self, connection: StatementConnection) -> None:
        while group := await self._next_group(connection):
            try:
                await self._commit_group(connection, group)
            except psycopg.Error as error:
                _LOG.warning("a commit of %d requests failed, they were told to come again: %s", len(group), error)
                self._failed_at, self._failure = time.monotonic(), f"commits: {error.diag.message_primary or error}"
                _refuse(group, TryLaterError("not_stored", "the events could not be stored: send this again", 1.0))
            finally:
                # Requests are still unanswered here only if this task is cancelled.
                _refuse(group, TryLaterError("stopping", "the gateway is stopping: send this again", 1.0))

    async def _next_group(self, connection: StatementConnection) -> list[Waiting]:
        """Wait for the next requests to commit. Empty if the connection was lost meanwhile."""
        while connection.is_connected:
            group = self._take_group()
            if group:
                return group
            self._wake.clear()
            await self._wake.wait()
        return []

    def _take_group(self) -> list[Waiting]:
        """The requests of the lane whose first request waits longest, up to `commit_events_max` events."""
        group: list[Waiting] = []
        others: list[Waiting] = []
        events = 0
        while self._pending:
            waiting = self._pending[0]
            if group and events + waiting.events > self._events_max:
                break
            self._pending.popleft()
            if waiting.done.done():
                continue
            if group and waiting.lane is not group[0].lane:
                others.append(waiting)
                continue
            group.append(waiting)
            events += waiting.events
        self._pending.extendleft(reversed(others))
        return group

    def _take_all(self) -> list[Waiting]:
        everyone = list(self._pending)
        self._pending.clear()
        return everyone

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
        self._failed_at = float("-inf")
        for waiting in group:
            _resolve(waiting, [])
        if accepted:
            self._committed()
        self._done(group, result, time.perf_counter() - begin)

    def _done(self, group: list[Waiting], result: pq.abc.PGresult | None, seconds: float) -> None:
        """Called after each commit that stored a whole group. result: its batch_id and received_at, as text."""
        self._numbers.committed(sum(waiting.events for waiting in group), seconds)

    async def _commit_one_by_one(self, group: list[Waiting]) -> None:
        for waiting in group:
            try:
                async with self._careful_turn, self._careful.bounded() as conn:
                    late = await accept_carefully(conn, waiting.lane, waiting.judged)
            except Exception as error:
                if _is_not_the_datas(error):
                    raise
                _LOG.exception("a request cannot be stored, not even in quarantine")
                _refuse([waiting], TryLaterError("not_stored", "the events could not be stored", 30.0))
            else:
                _resolve(waiting, late)
                self._committed()


def _is_not_the_datas(error: Exception) -> bool:
    """Whether a commit would fail with any data. Errors that are not from PostgreSQL come from encoding the data."""
    return isinstance(error, psycopg.Error) and not is_bad_data(error)


def _resolve(waiting: Waiting, late: list[Late]) -> None:
    if not waiting.done.done():
        waiting.done.set_result(late)


def _refuse(group: list[Waiting], error: TryLaterError) -> None:
    for waiting in group:
        if not waiting.done.done():
            waiting.done.set_exception(error)
