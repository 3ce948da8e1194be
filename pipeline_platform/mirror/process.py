"""The mirror: sends every batch of a mirrored epoch to the old pipeline, beside the route and never in its way.

Each batch is sent at most once: it is marked as being sent before its first byte, and what a mirror that died may have
sent counts as lost at stage `mirror`, because the old pipeline has no idempotency; recovery finds what is missing. One
mirror runs at a time, a second one waits. It outlives outages of PostgreSQL and of the old pipeline; how much waits is
in queue.mirror, what it could not deliver in legacy.losses.
"""

import asyncio
import contextlib
import logging
import signal
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import psycopg

from pipeline_platform.db import connect_async, queries
from pipeline_platform.errors import is_transient
from pipeline_platform.event import QueuedEvent
from pipeline_platform.kill_points import reach
from pipeline_platform.mirror.target import Config, Fate, Target, Tenant, config_of
from pipeline_platform.queue.batches import read, work_of
from pipeline_platform.settings import Settings

_LOG = logging.getLogger(__name__)
_SQL = queries("mirror")
_POLL_S = 0.25
_CONFIG_EVERY_S = 1.0
_WAIT_S = 1.0
_BATCHES_AT_ONCE = 64
# Rounds under way at once: a request that hangs holds up its own round only.
_ROUNDS = 8

Key = tuple[int, datetime, str]


class Ledger:
    """What one round has to write down."""

    def __init__(self, mirror_ids: Sequence[int]) -> None:
        self.mirror_ids = mirror_ids
        self._proceeded: Counter[Key] = Counter()
        self._failed: Counter[Key] = Counter()
        self._lost: list[tuple[int, Any, str, str]] = []

    def note(self, events: Iterable[QueuedEvent], fate: Fate) -> None:
        """Enter the fate of one request's events at each stage that the mirror speaks for."""
        for event in events:
            hour = event.batch_received_at.replace(minute=0, second=0, microsecond=0)
            self._count(event.tenant_id, hour, "mirror", failed=fate.lost_at == "mirror")
            if fate.lost_at != "mirror" and not fate.counts_itself:
                self._count(event.tenant_id, hour, "gateway", failed=fate.lost_at == "gateway")
            if fate.lost_at and not fate.counts_itself:
                self._lost.append((event.tenant_id, event.event_id, fate.lost_at, fate.cause))

    def _count(self, tenant_id: int, hour: datetime, stage: str, *, failed: bool) -> None:
        (self._failed if failed else self._proceeded)[(tenant_id, hour, stage)] += 1

    def params(self) -> dict[str, Any]:
        keys = list(self._proceeded.keys() | self._failed.keys())
        return {
            "mirror_ids": list(self.mirror_ids),
            "tenant_ids": [key[0] for key in keys],
            "hours": [key[1] for key in keys],
            "stages": [key[2] for key in keys],
            "proceeded": [self._proceeded[key] for key in keys],
            "failed": [self._failed[key] for key in keys],
            "lost_tenant_ids": [lost[0] for lost in self._lost],
            "lost_event_ids": [lost[1] for lost in self._lost],
            "lost_stages": [lost[2] for lost in self._lost],
            "lost_causes": [lost[3] for lost in self._lost],
        }


class Mirror:
    """Runs until stopped."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self._turn = asyncio.Lock()
        self._rounds: set[asyncio.Task[None]] = set()
        self._tenants: dict[int, Tenant] = {}

    async def run(self) -> None:
        """Until SIGTERM or SIGINT; what is on its way is finished."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
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
            await self._settle_left_behind(conn)
            await side.execute("LISTEN queue_work")
            try:
                while not self._stopping.is_set():
                    target = Target(await self._config(conn))
                    # Keys may have been added with the configuration.
                    self._tenants = {}
                    try:
                        await self._forward(conn, side, target)
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
        return config_of(row)

    async def _forward(
        self, conn: psycopg.AsyncConnection[Any], side: psycopg.AsyncConnection[Any], target: Target
    ) -> None:
        """Rounds, until stopped or configured anew."""
        clock = asyncio.get_running_loop()
        look_at = clock.time() + _CONFIG_EVERY_S
        while not self._stopping.is_set():
            if clock.time() >= look_at:
                look_at = clock.time() + _CONFIG_EVERY_S
                if await self._config(conn) != target.config:
                    return
            for task in [task for task in self._rounds if task.done()]:
                self._rounds.discard(task)
                task.result()
            if len(self._rounds) >= _ROUNDS:
                await asyncio.wait(self._rounds, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED)
                continue
            rows = await self._take(conn, target.config)
            if rows:
                self._rounds.add(asyncio.create_task(self._round(conn, target, rows)))
            if len(rows) < _BATCHES_AT_ONCE:
                async for _ in side.notifies(timeout=_POLL_S, stop_after=1):
                    pass

    async def _take(self, conn: psycopg.AsyncConnection[Any], config: Config) -> list[tuple[Any, ...]]:
        async with self._turn:
            cursor = conn.cursor(binary=True)
            await cursor.execute(_SQL["take"], {"limit": _BATCHES_AT_ONCE, "give_up_s": config.give_up_s}, prepare=True)
            return await cursor.fetchall()

    async def _round(self, conn: psycopg.AsyncConnection[Any], target: Target, rows: Sequence[tuple[Any, ...]]) -> None:
        ledger = Ledger([row[0] for row in rows])
        groups: dict[tuple[int, bytes], list[QueuedEvent]] = defaultdict(list)
        for _, is_late, *claimed in rows:
            # What was erased meanwhile has no bytes left.
            events = [event for event in read(work_of(tuple(claimed))) if event.payload]
            if is_late:
                ledger.note(events, Fate("mirror", "waited too long"))
                continue
            for event in events:
                groups[(event.tenant_id, event.envelope)].append(event)
        await self._know(conn, {tenant_id for tenant_id, _ in groups})
        reach("mirror.before_send")
        sent = [target.send(self._tenants[tenant_id], events) for (tenant_id, _), events in groups.items()]
        for events, fate in zip(groups.values(), await asyncio.gather(*sent), strict=True):
            ledger.note(events, fate)
        reach("mirror.before_settle")
        await self._settle(conn, ledger)

    async def _know(self, conn: psycopg.AsyncConnection[Any], tenant_ids: set[int]) -> None:
        unknown = [tenant_id for tenant_id in tenant_ids if tenant_id not in self._tenants]
        if unknown:
            async with self._turn:
                rows = await (await conn.execute(_SQL["tenants"], (unknown,))).fetchall()
            self._tenants |= {row[0]: Tenant(*row) for row in rows}

    async def _settle(self, conn: psycopg.AsyncConnection[Any], ledger: Ledger) -> None:
        async with self._turn:
            await conn.execute(_SQL["settle"], ledger.params())

    async def _finish_rounds(self) -> None:
        """Wait for what is on its way; a round that failed is raised by the next look at it, or settled by the next
        mirror."""
        if self._rounds:
            await asyncio.wait(self._rounds)
            done, self._rounds = self._rounds, set()
            for task in done:
                if error := task.exception():
                    _LOG.warning("a round ended with %s: its batches count as lost by the mirror", error)

    async def _settle_left_behind(self, conn: psycopg.AsyncConnection[Any]) -> None:
        rows = await (await conn.execute(_SQL["left_behind"])).fetchall()
        if not rows:
            return
        ids = list({row[0] for row in rows})
        _LOG.warning("%d batches were on their way when a mirror died: they count as lost by it", len(ids))
        hours = [row[3].replace(minute=0, second=0, microsecond=0) for row in rows]
        params = {
            "mirror_ids": ids,
            "tenant_ids": [row[1] for row in rows],
            "hours": hours,
            "stages": ["mirror"] * len(rows),
            "proceeded": [0] * len(rows),
            "failed": [1] * len(rows),
            "lost_tenant_ids": [row[1] for row in rows],
            "lost_event_ids": [row[2] for row in rows],
            "lost_stages": ["mirror"] * len(rows),
            "lost_causes": ["the mirror died"] * len(rows),
        }
        await conn.execute(_SQL["settle"], params)
