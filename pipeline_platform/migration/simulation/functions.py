"""The old pipeline's functions: one invocation an event, a synchronous look-up, one insert, each with a time-out.

An event that times out is lost. Events that a killed process held are lost, too, and reported only when the visibility
time-out of their messages has passed.
"""

import asyncio
import contextlib
import heapq
import logging
import signal
from collections.abc import AsyncGenerator
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from pipeline_platform.db import queries
from pipeline_platform.migration.simulation.capacity import Capacity
from pipeline_platform.migration.simulation.counts import Counts, counting
from pipeline_platform.migration.simulation.queueing import Message, Queue
from pipeline_platform.migration.simulation.rows import row_of
from pipeline_platform.settings import Settings

_LOG = logging.getLogger(__name__)
_SQL = queries("legacy")
_POLL_S = 0.02
_RECEIVE_MAX = 50
_SWEEP_EVERY_S = 1.0
# The stores are local. The network latency is simulated by sleeping while a place of the pool is held.
_CONNECTIONS = 4


class Remote:
    """A remote store: few places, each held for the duration of a call.

    A call begins when its place became free, not when the task was woken. This compensates for late wake-ups on a busy
    machine, so that the store has its stated capacity.
    """

    def __init__(self, places: int, call_s: float, timeout_s: float) -> None:
        self._places = asyncio.Semaphore(places)
        self._free_at = [0.0] * places
        self._call_s = call_s
        self._timeout_s = timeout_s

    @contextlib.asynccontextmanager
    async def call(self) -> AsyncGenerator[None]:
        """One call; TimeoutError if no place becomes free in time."""
        clock = asyncio.get_running_loop()
        asked_at = clock.time()
        async with asyncio.timeout(self._timeout_s):
            await self._places.acquire()
        ends_at = max(asked_at, heapq.heappop(self._free_at)) + self._call_s
        try:
            yield
            await asyncio.sleep(max(0.0, ends_at - clock.time()))
        finally:
            heapq.heappush(self._free_at, ends_at)
            self._places.release()


class Functions:
    """The process that invokes the functions."""

    def __init__(self, settings: Settings, pool: AsyncConnectionPool[Any], counts: Counts) -> None:
        self._capacity = capacity = Capacity(settings.legacy_capacity_per_s)
        self._pool = pool
        self._counts = counts
        self._queue = Queue(settings.redis_url)
        self._lookups = Remote(capacity.lookups_at_once, capacity.lookup_s, capacity.lookup_timeout_s)
        self._writes = Remote(capacity.writes_at_once, capacity.write_s, capacity.write_timeout_s)
        self._invocations: set[asyncio.Task[None]] = set()
        self._finished: list[bytes] = []

    async def run(self, stopping: asyncio.Event) -> None:
        """Run until told to stop, then finish the events in hand."""
        clock = asyncio.get_running_loop()
        sweep_at = 0.0
        while not stopping.is_set():
            room = self._capacity.functions_at_once - len(self._invocations)
            received = await self._queue.receive(min(room, _RECEIVE_MAX), self._capacity.visibility_s) if room else []
            for receipt, message in received:
                task = asyncio.create_task(self._invoke(receipt, message))
                self._invocations.add(task)
                task.add_done_callback(self._invocations.discard)
            await self._tell_finished()
            if clock.time() >= sweep_at:
                sweep_at = clock.time() + _SWEEP_EVERY_S
                self._counts.failed("queue", "visibility time-out", await self._queue.expired())
            if len(received) < _RECEIVE_MAX:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), _POLL_S)
        if self._invocations:
            await asyncio.wait(self._invocations)
        await self._tell_finished()
        await self._queue.close()

    async def _tell_finished(self) -> None:
        if self._finished:
            finished, self._finished = self._finished, []
            await self._queue.finish(finished)

    async def _invoke(self, receipt: bytes, message: Message) -> None:
        self._counts.proceeded("queue", [message])
        try:
            row = await self._stage("lookup", message, self._look_up(message))
            if row is not None:
                await self._stage("write", message, self._write(row))
        finally:
            self._finished.append(receipt)

    async def _stage(self, stage: str, message: Message, work: Any) -> Any:
        """Run one stage for one event; None if the event was lost there. The loss is counted."""
        self._counts.arrived(stage, [message])
        try:
            result = await work
        except TimeoutError:
            self._counts.failed(stage, "time-out", [message])
            return None
        except (psycopg.Error, ValueError) as error:
            self._counts.failed(stage, type(error).__name__, [message])
            return None
        self._counts.proceeded(stage, [message])
        return result

    async def _look_up(self, message: Message) -> dict[str, Any]:
        """The event's row, with the looked-up data of the tenant and the user."""
        row = row_of(message)
        async with self._lookups.call(), self._pool.connection() as conn:
            cursor = await conn.execute(_SQL["look_up"], row, prepare=True)
            plan, traits = await cursor.fetchone() or (None, None)
        return {**row, "tenant_plan": plan, "user_traits": traits}

    async def _write(self, row: dict[str, Any]) -> bool:
        async with self._writes.call(), self._pool.connection() as conn:
            await conn.execute(_SQL["write"], row, prepare=True)
        return True


async def run_functions(settings: Settings) -> None:
    """Run the process until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    options = {
        "autocommit": True,
        # The events were acknowledged earlier, so the insert need not wait for fsync. If PostgreSQL does not answer in
        # time, the event is lost, as when no connection becomes free.
        "options": "-c synchronous_commit=off -c TimeZone=UTC -c statement_timeout=2000",
        "application_name": "pipeline-platform-legacy-functions",
    }
    async with (
        AsyncConnectionPool(
            settings.database_url, min_size=_CONNECTIONS, max_size=_CONNECTIONS, kwargs=options
        ) as pool,
        counting(settings.database_url) as counts,
    ):
        await Functions(settings, pool, counts).run(stopping)
