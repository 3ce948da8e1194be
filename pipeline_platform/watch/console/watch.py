"""One loop that reads for all viewers. Without viewers it reads only the charts' few figures, every ten seconds.

So a viewer who opens the page during an incident sees when it began. After each round the loop waits ten times as long
as reading took, so slow reads happen less often. While PostgreSQL does not answer the loop retries, and the page shows
since when.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg
from sse_starlette import ServerSentEvent

from pipeline_platform.errors import NoSuchThingError
from pipeline_platform.settings import Settings
from pipeline_platform.watch.console.last_hour import POINT_EVERY_S, LastHour, Sample
from pipeline_platform.watch.console.page import Pages
from pipeline_platform.watch.console.snapshot import (
    Conn,
    Platform,
    View,
    beginning,
    open_connection,
    read_latency,
    read_platform,
    read_totals,
    read_view,
)

_LOG = logging.getLogger(__name__)
_EVERY_S = 1.0
_REST = 10.0  # multiple of the time that reading took
_REST_S_MAX = 10.0
_AT_ONCE_S = 0.2  # minimum time between two rounds, for any number of viewers
_WANTED_S = 10.0
_PATIENCE_S = 6.0


@dataclass(slots=True)
class Shown:
    """One view as last read. versions: the round in which each section changed."""

    tenant: str | None
    last_hour: LastHour = field(default_factory=LastHour)
    sections: dict[str, str] = field(default_factory=dict[str, str])
    versions: dict[str, int] = field(default_factory=dict[str, int])
    viewers: int = 0
    wanted_until: float = 0.0
    is_missing: bool = False
    read_in: int = 0
    _messages: dict[int, bytes] = field(default_factory=dict[int, bytes])

    @property
    def is_watched(self) -> bool:
        return self.viewers > 0 or self.wanted_until > time.monotonic()

    def show(self, sections: dict[str, str], version: int) -> None:
        for name, html in sections.items():
            if self.sections.get(name) != html:
                self.sections[name], self.versions[name] = html, version
        self._messages.clear()

    def message(self, seen: int) -> bytes:
        """The changes after the round `seen` as a message; empty: none. Built once for all viewers at that round."""
        if seen not in self._messages:
            changed = {name: self.sections[name] for name, version in self.versions.items() if version > seen}
            self._messages[seen] = ServerSentEvent(json.dumps(changed), event="sections").encode() if changed else b""
        return self._messages[seen]


class Watch:
    """The state shared by all viewers. Used only from the event loop; reads in a thread, one at a time."""

    def __init__(self, settings: Settings, pages: Pages) -> None:
        self._settings = settings
        self._pages = pages
        self._shown: dict[str | None, Shown] = {None: Shown(None)}
        self._conn: Conn | None = None
        self._platform: Platform | None = None
        self._away_since: datetime | None = None
        self._round = 0
        self._changed = asyncio.Condition()
        self._wanted = asyncio.Event()

    @property
    def viewers(self) -> int:
        return sum(shown.viewers for shown in self._shown.values())

    async def page(self, tenant: str | None) -> dict[str, str] | None:
        """The current sections of a view; None if the tenant does not exist."""
        shown = await self._want(tenant)
        return None if shown.is_missing else shown.sections

    @contextlib.asynccontextmanager
    async def follow(self, tenant: str | None) -> AsyncGenerator[AsyncGenerator[bytes]]:
        """Messages while the context is open: the first with all sections, later ones with changes."""
        shown = await self._want(tenant)
        shown.viewers += 1
        try:
            yield self._messages(shown)
        finally:
            shown.viewers -= 1

    async def _messages(self, shown: Shown) -> AsyncGenerator[bytes]:
        seen = 0
        while not shown.is_missing:
            now = self._round
            if message := shown.message(seen):
                yield message
            seen = now
            async with self._changed:
                await self._changed.wait_for(lambda seen=seen: self._round > seen)

    async def _want(self, tenant: str | None) -> Shown:
        """The view, when it was read after this request."""
        shown = self._shown.setdefault(tenant, Shown(tenant))
        was_watched = shown.is_watched and shown.read_in > 0
        shown.wanted_until = time.monotonic() + _WANTED_S
        if not was_watched:
            before = self._round
            self._wanted.set()
            async with self._changed:
                await self._changed.wait_for(
                    lambda: shown.read_in > before or (self._away_since is not None and self._round > before)
                )
        return shown

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            self._wanted.clear()
            self._forget()
            watched = [shown for shown in self._shown.values() if shown.is_watched]
            begun = time.monotonic()
            await self._read_patiently(watched)
            rest = self._rest_s(time.monotonic() - begun) if watched else POINT_EVERY_S
            await asyncio.sleep(_AT_ONCE_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), rest - _AT_ONCE_S)

    def _rest_s(self, took_s: float) -> float:
        """The time until the next round while there are viewers."""
        return _EVERY_S if self._away_since else min(max(_EVERY_S - took_s, _REST * took_s), _REST_S_MAX)

    async def _read_patiently(self, watched: Sequence[Shown]) -> None:
        """One round. If the server does not answer for some seconds, the page shows that while the round goes on."""
        reading = asyncio.create_task(asyncio.to_thread(self._read, watched))
        done, _ = await asyncio.wait({reading}, timeout=_PATIENCE_S)
        if not done:
            await self._tell_away("it does not answer")
        try:
            found = await reading
        except psycopg.Error as error:
            self._conn = None
            await self._tell_away(str(error).strip())
            return
        self._away_since = None
        async with self._changed:
            self._round += 1
            for shown in watched:
                shown.is_missing = shown.tenant not in found
                shown.read_in = self._round
                shown.show(found.get(shown.tenant, {}), self._round)
            self._changed.notify_all()

    async def _tell_away(self, why: str) -> None:
        if self._away_since is None:
            _LOG.warning("PostgreSQL is away: %s", why)
            self._away_since = datetime.now(UTC)
        async with self._changed:
            self._round += 1
            status = self._pages.status(self._platform, self._away_since)
            for shown in self._shown.values():
                shown.show({"status": status}, self._round)
            self._changed.notify_all()

    def _forget(self) -> None:
        for tenant in [tenant for tenant, shown in self._shown.items() if tenant is not None and not shown.is_watched]:
            del self._shown[tenant]

    def _read(self, watched: Sequence[Shown]) -> dict[str | None, dict[str, str]]:
        """The sections of each view that exists. Runs in a thread."""
        if self._conn is None or self._conn.closed:
            self._conn = open_connection(self._settings)
        everything = self._shown[None].last_hour
        if not watched:
            self._note(self._conn, everything)
            return {}
        platform = self._platform = read_platform(self._conn, self._settings, everything.batches_lately)
        found: dict[str | None, dict[str, str]] = {}
        for shown in watched:
            try:
                view = read_view(self._conn, self._settings, platform, shown.tenant)
            except NoSuchThingError:
                continue
            shown.last_hour.add(_sample(platform, view))
            sections = self._pages.sections(platform, view, shown.last_hour.rates, shown.last_hour.points)
            found[shown.tenant] = {"status": self._pages.status(platform, None), **sections}
        if None not in found:
            self._note(self._conn, everything)
        return found

    def _note(self, conn: Conn, last_hour: LastHour) -> None:
        now = datetime.now(UTC)
        since = beginning(now)
        latency, newest = read_latency(conn, last_hour.batches_lately)
        numbers, old = read_totals(conn, since)
        last_hour.add(Sample(now, since, numbers, old, latency, newest))


def _sample(platform: Platform, view: View) -> Sample:
    old = view.funnel.legacy_pipeline
    passed = {stage.stage: stage.proceeded for stage in old.stages} if old else {}
    numbers = view.funnel.numbers
    return Sample(platform.taken_at, platform.since, numbers, passed, view.latency, platform.newest_batch)
