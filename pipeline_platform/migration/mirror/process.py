"""The mirror: sends every batch of a mirrored epoch to the old pipeline, without delaying the platform's own delivery.

Each batch is sent at most once, because the old pipeline has no idempotency. A batch is recorded before its first byte
is sent. If the mirror dies, what it may have sent counts as lost at stage `mirror`; recovery finds what is missing.
Only one mirror runs at a time; a second one waits. It survives outages of PostgreSQL and of the old pipeline.
queue.mirror has what waits, legacy.losses what it could not deliver.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Sequence
from typing import Any

import psycopg

from pipeline_platform.db import connect_async, queries
from pipeline_platform.errors import is_transient
from pipeline_platform.event.types import QueuedEvent
from pipeline_platform.kill_points import reach
from pipeline_platform.migration.mirror.fates import Fates
from pipeline_platform.migration.mirror.low_water import MirrorLowWater
from pipeline_platform.migration.mirror.own_table import keeping_identities
from pipeline_platform.migration.mirror.requests import requests_of
from pipeline_platform.migration.mirror.target import Config, Fate, Target, Tenant
from pipeline_platform.queue.batches import batch_of, read
from pipeline_platform.settings import Settings

_LOG = logging.getLogger(__name__)
_SQL = queries("mirror")
_POLL_S = 0.25
_LOOK_EVERY_S = 1.0
_WAIT_S = 1.0
# The limits of one round. Its events are in memory, and lost if the mirror is killed.
_BATCHES_AT_ONCE, _EVENTS_AT_ONCE = 64, 4_000
# The minimum time between rounds. Several commits then share a round's statements, which saves CPU for the platform.
_ROUND_EVERY_S = 0.02


class Mirror:
    """Runs until stopped."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self._turn = asyncio.Lock()
        self._rounds: set[asyncio.Task[None]] = set()
        self._unrecorded: list[Fates] = []
        self._tenants: dict[int, Tenant] = {}

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT, then finish the requests under way."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        with keeping_identities(self._settings.database_url):
            while not self._stopping.is_set():
                try:
                    await self._run_connected()
                except psycopg.Error as error:
                    if not is_transient(error):
                        raise
                    _LOG.warning("PostgreSQL cannot serve (%s); waiting", str(error).strip())
                    await self._pause(_WAIT_S)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _run_connected(self) -> None:
        url = self._settings.database_url
        async with await connect_async(url, "mirror") as conn, await connect_async(url, "mirror wake") as side:
            while not await self._is_the_only_one(side):
                await self._pause(_WAIT_S)
                if self._stopping.is_set():
                    return
            # First store fates that became known while the database was unreachable, then count unknown ones as lost.
            await self._record(conn)
            await self._record_left_behind(conn)
            try:
                low_water = MirrorLowWater()
                while not self._stopping.is_set():
                    target = Target(await self._config(conn))
                    # Keys may have been added with the configuration.
                    self._tenants = {}
                    try:
                        await self._forward(conn, side, target, low_water)
                    finally:
                        await self._finish_rounds()
                        await target.close()
            finally:
                await self._finish_rounds()

    async def _is_the_only_one(self, side: psycopg.AsyncConnection[Any]) -> bool:
        return await (await side.execute(_SQL["only_one"])).fetchone() == (True,)

    async def _config(self, conn: psycopg.AsyncConnection[Any]) -> Config:
        async with self._turn:
            row = await (await conn.execute(_SQL["target"])).fetchone()
        assert row
        return Config(*row)

    async def _forward(
        self,
        conn: psycopg.AsyncConnection[Any],
        side: psycopg.AsyncConnection[Any],
        target: Target,
        low_water: MirrorLowWater,
    ) -> None:
        """Run rounds until stopped or until the configuration changes."""
        clock = asyncio.get_running_loop()
        look_at = 0.0
        while not self._stopping.is_set():
            if clock.time() >= look_at:
                look_at = clock.time() + _LOOK_EVERY_S
                if await self._config(conn) != target.config:
                    return
                async with self._turn:
                    await low_water.refresh(conn, side)
            for task in [task for task in self._rounds if task.done()]:
                self._rounds.discard(task)
                task.result()
            await target.room()
            began_at = clock.time()
            rows = await self._take(conn, target.config, low_water.low_water)
            if rows:
                self._rounds.add(asyncio.create_task(self._round(conn, target, rows)))
            else:
                async for _ in side.notifies(timeout=_POLL_S, stop_after=1):
                    pass
            await self._pause(max(0.0, began_at + _ROUND_EVERY_S - clock.time()))

    async def _take(self, conn: psycopg.AsyncConnection[Any], config: Config, low_water: int) -> list[tuple[Any, ...]]:
        params = {
            "batches": _BATCHES_AT_ONCE, "events": _EVENTS_AT_ONCE, "low_water": low_water,
            "give_up_s": config.give_up_s,
        }  # fmt: skip
        async with self._turn:
            cursor = conn.cursor(binary=True)
            await cursor.execute(_SQL["take"], params, prepare=True)
            return await cursor.fetchall()

    async def _round(self, conn: psycopg.AsyncConnection[Any], target: Target, rows: Sequence[tuple[Any, ...]]) -> None:
        fates = Fates([row[0] for row in rows])
        wanted: list[QueuedEvent] = []
        for _, is_late, *batch in rows:
            # Events erased meanwhile have an empty payload.
            events = [event for event in read(batch_of(batch)) if event.payload]
            if is_late:
                fates.note(events, Fate("mirror", "waited too long"))
            else:
                wanted += events
        await self._know(conn, {event.tenant_id for event in wanted})
        reach("mirror.before_send")
        requests = list(requests_of(wanted))
        sent = [target.send(self._tenants[events[0].tenant_id], events) for events in requests]
        for events, fate in zip(requests, await asyncio.gather(*sent), strict=True):
            fates.note(events, fate)
        reach("mirror.before_record")
        self._unrecorded.append(fates)
        await self._record(conn)

    async def _know(self, conn: psycopg.AsyncConnection[Any], tenant_ids: set[int]) -> None:
        unknown = [tenant_id for tenant_id in tenant_ids if tenant_id not in self._tenants]
        if unknown:
            async with self._turn:
                rows = await (await conn.execute(_SQL["tenants"], (unknown,))).fetchall()
            self._tenants |= {row[0]: Tenant(*row) for row in rows}

    async def _record(self, conn: psycopg.AsyncConnection[Any]) -> None:
        """Store every known fate. A fate that cannot be stored now is stored when the database is reachable again."""
        async with self._turn:
            while self._unrecorded:
                await conn.execute(_SQL["record"], self._unrecorded[0].params(), prepare=True)
                del self._unrecorded[0]

    async def _finish_rounds(self) -> None:
        """Wait for the requests under way, so that their fate is known."""
        if self._rounds:
            done, _ = await asyncio.wait(self._rounds)
            self._rounds.clear()
            for task in done:
                if error := task.exception():
                    _LOG.warning("a round of the mirror ended with %s", error)

    async def _record_left_behind(self, conn: psycopg.AsyncConnection[Any]) -> None:
        rows = await (await conn.execute(_SQL["left_behind"])).fetchall()
        if not rows:
            return
        fates = Fates(sorted({row[0] for row in rows}))
        _LOG.warning(
            "%d batches were being sent when a mirror died: they count as lost at the mirror", len(fates.mirror_ids)
        )
        for _, tenant_id, event_id, batch_received_at in rows:
            fates.note_one(tenant_id, event_id, batch_received_at, Fate("mirror", "the mirror died"))
        await conn.execute(_SQL["record"], fates.params())
