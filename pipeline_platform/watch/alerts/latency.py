"""Who is slow, and has been for a while: the condition of `latency_high`. A burst, as of a file sent, is none.

Judged are windows of `objective_latency_window_s`, counted back from now, of all tenants together and of each. A window
with fewer than 20 events says nothing: it is passed over, neither missed nor met. Slow is who missed the objective in
the newest `objective_latency_windows` others, all of them among twice as many windows. So a pause neither ends what
lasts nor makes a burst last, one window that met the objective ends it, and who seldom sends is not judged.
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

# Below that a percentile says little.
_EVENTS_MIN = 20


@dataclass(frozen=True, slots=True)
class Window:
    """Of a tenant's events (None: all), those received from `since` on. sample_id: one that took too long."""

    tenant_id: int | None
    since: datetime
    events: int
    p95_ms: float
    worst_ms: float
    sample_id: str | None


def slow_for_long(conn: Conn, settings: Settings) -> list[list[Window]]:
    """The missed windows, the newest first, of all tenants together where they are slow, else of each tenant that is.

    Of who meets the objective one window is read, older ones of who does not.
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
    """Of each of these tenants and of all of them together, where there are events enough."""
    asked = {
        "tenants": tenants,
        "start": end - length,
        "end": end,
        "events_min": _EVENTS_MIN,
        "p95_ms": settings.objective_latency_p95_ms,
    }
    with conn.cursor(row_factory=class_row(Window)) as cursor:
        return cursor.execute(_SQL["latency_window"], asked).fetchall()
