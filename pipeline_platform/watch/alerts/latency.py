"""The condition of `latency_high`: latency over the objective for some time. A burst, such as a file, is not enough.

It judges windows of `objective_latency_window_s`, counted back from now, of all tenants together and of each tenant.
Windows with fewer than 20 events are skipped. A tenant is slow if it missed the objective in each of the newest
`objective_latency_windows` other windows, and all of them are among the last twice as many windows. So a pause neither
ends a lasting problem nor prolongs a burst. One window that meets the objective ends the condition. Tenants that rarely
send are not judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import class_row

from pipeline_platform.db import queries
from pipeline_platform.settings import Settings

_SQL = queries("alerts")
Conn = psycopg.Connection[Any]

# With fewer events a percentile means little.
_EVENTS_MIN = 20


@dataclass(frozen=True, slots=True)
class Window:
    """A tenant's events (None: all tenants') received from `since` on. sample_id: an event that took too long."""

    tenant_id: int | None
    since: datetime
    events: int
    p95_ms: float
    worst_ms: float
    sample_id: str | None


def slow_for_long(conn: Conn, settings: Settings) -> list[list[Window]]:
    """The missed windows, the newest first: of all tenants together if they are slow, else of each slow tenant.

    Reads one window of a tenant that meets the objective, and older windows only of the others.
    """
    needed, horizon = settings.objective_latency_windows, 2 * settings.objective_latency_windows
    length = timedelta(seconds=settings.objective_latency_window_s)
    row = conn.execute(_SQL["clock"]).fetchone()
    assert row
    now: datetime = row[0]
    since = {"since": now - horizon * length}
    tenants: list[int] = [tenant for (tenant,) in conn.execute(_SQL["latency_tenants"], since).fetchall()]
    missed: dict[int | None, list[Window]] = {who: [] for who in (None, *tenants)}
    lasting: dict[int | None, list[Window]] = {}
    for place in range(horizon):
        missed = {who: own for who, own in missed.items() if len(own) + horizon - place >= needed}
        if not missed or None in lasting:
            break
        read = tenants if None in missed else [who for who in missed if who is not None]
        for window in _windows(conn, settings, read, now - place * length, length):
            who = window.tenant_id
            if who not in missed:
                continue
            missed[who].append(window)
            if window.p95_ms <= settings.objective_latency_p95_ms:
                del missed[who]
            elif len(missed[who]) == needed:
                lasting[who] = missed.pop(who)
    return [lasting[None]] if None in lasting else list(lasting.values())


def _windows(conn: Conn, settings: Settings, tenants: Sequence[int], end: datetime, length: timedelta) -> list[Window]:
    """The windows of each of these tenants and of all together, if they have enough events."""
    asked = {
        "tenants": tenants,
        "start": end - length,
        "end": end,
        "events_min": _EVENTS_MIN,
        "p95_ms": settings.objective_latency_p95_ms,
    }
    with conn.cursor(row_factory=class_row(Window)) as cursor:
        return cursor.execute(_SQL["latency_window"], asked).fetchall()
