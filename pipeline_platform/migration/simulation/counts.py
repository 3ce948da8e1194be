"""The old pipeline's instrumentation: the counts of each stage, written a few times a second.

A killed process loses its latest counts, as in such pipelines.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Iterable
from datetime import UTC, datetime
from typing import Any

import psycopg

from pipeline_platform.db import connect_async, queries
from pipeline_platform.migration.simulation.queueing import Message

_LOG = logging.getLogger(__name__)
_SQL = queries("legacy")
_FLUSH_S = 0.25

CountKey = tuple[int, datetime, str]


class Counts:
    """The counts of one process."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._arrived: Counter[CountKey] = Counter()
        self._proceeded: Counter[CountKey] = Counter()
        self._failed: Counter[CountKey] = Counter()
        self._lost: list[tuple[int, str, str, str]] = []

    def arrived(self, stage: str, messages: Iterable[Message]) -> None:
        self._arrived.update(_key(stage, message) for message in messages)

    def proceeded(self, stage: str, messages: Iterable[Message]) -> None:
        self._proceeded.update(_key(stage, message) for message in messages)

    def failed(self, stage: str, cause: str, messages: Iterable[Message]) -> None:
        for message in messages:
            self._failed[_key(stage, message)] += 1
            self._lost.append((message.tenant_id, message.event_id, stage, cause))

    async def run(self) -> None:
        """Write the counts until cancelled, and once more at the end."""
        while True:
            try:
                async with await connect_async(self._url, "legacy counts") as conn:
                    try:
                        while True:
                            await asyncio.sleep(_FLUSH_S)
                            await self._flush(conn)
                    except asyncio.CancelledError:
                        await self._flush(conn)
                        raise
            except psycopg.Error as error:
                _LOG.warning("counts are written later: %s", error)
                await asyncio.sleep(1.0)

    async def _flush(self, conn: psycopg.AsyncConnection[Any]) -> None:
        keys = sorted(self._arrived.keys() | self._proceeded.keys() | self._failed.keys())
        if not keys:
            return
        params = {
            "tenant_ids": [key[0] for key in keys],
            "hours": [key[1] for key in keys],
            "stages": [key[2] for key in keys],
            "arrived": [self._arrived[key] for key in keys],
            "proceeded": [self._proceeded[key] for key in keys],
            "failed": [self._failed[key] for key in keys],
            "lost_tenant_ids": [lost[0] for lost in self._lost],
            "lost_event_ids": [lost[1] for lost in self._lost],
            "lost_stages": [lost[2] for lost in self._lost],
            "lost_causes": [lost[3] for lost in self._lost],
        }
        written = (self._arrived, self._proceeded, self._failed, self._lost)
        self._arrived, self._proceeded, self._failed, self._lost = Counter(), Counter(), Counter(), []
        try:
            await conn.execute(_SQL["count"], params, prepare=True)
        except psycopg.Error:
            self._arrived.update(written[0])
            self._proceeded.update(written[1])
            self._failed.update(written[2])
            self._lost += written[3]
            raise


@contextlib.asynccontextmanager
async def counting(database_url: str) -> AsyncGenerator[Counts]:
    """Counts, written in the background and at the end."""
    counts = Counts(database_url)
    task = asyncio.create_task(counts.run())
    try:
        yield counts
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _key(stage: str, message: Message) -> CountKey:
    arrived_at = datetime.fromtimestamp(message.arrived_at, UTC)
    return message.tenant_id, arrived_at.replace(minute=0, second=0, microsecond=0), stage
