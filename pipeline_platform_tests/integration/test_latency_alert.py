"""`latency_high` is of what lasts: which windows count, which are passed over, and what ends it."""

from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from pipeline_platform.settings import Settings
from pipeline_platform.watch.alerts.catalogue import Kind
from pipeline_platform.watch.alerts.conditions import CONDITIONS, look_at
from pipeline_platform.watch.alerts.objectives import objectives_of
from pipeline_platform_tests.support.tenants import add_tenants

Conn = psycopg.Connection[Any]
_WINDOW = timedelta(seconds=60)
_MET_MS, _MISSED_MS, _OBJECTIVE_MS = 5, 50, 12.0
_LATENCY = [condition for condition in CONDITIONS if Kind.LATENCY_HIGH in condition.kinds]


@pytest.fixture
def judging(settings: Settings) -> Settings:
    """Three windows of a minute."""
    return settings.model_copy(
        update={
            "objective_latency_p95_ms": _OBJECTIVE_MS,
            "objective_latency_window_s": _WINDOW.total_seconds(),
            "objective_latency_windows": 3,
            "alert_quiet_s": 0.0,
        }
    )


def deliver(conn: Conn, tenant: int, windows: str, events: int = 100) -> None:
    """A letter a window, the newest first. x: missed, o: met, f: missed by few events, a dot: none.

    Planted in the middle of each window, so that they are in it for half a minute from now.
    """
    (now,) = conn.execute("SELECT clock_timestamp()").fetchone() or (None,)
    assert isinstance(now, datetime)
    for place, letter in enumerate(windows):
        if letter != ".":
            ms = _MET_MS if letter == "o" else _MISSED_MS
            _plant(conn, tenant, now - (place + 0.5) * _WINDOW, ms, 19 if letter == "f" else events)


def _plant(conn: Conn, tenant: int, at: datetime, ms: int, events: int) -> None:
    conn.execute("SELECT queue.open_hour(date_trunc('hour', %s::timestamptz, 'UTC'))", (at,))
    conn.execute(
        "INSERT INTO analytics.events (tenant_id, event_id, message_id, type, occurred_at, received_at, delivered_at,"
        " batch_id) SELECT %(tenant)s, gen_random_uuid(), 'm', 'track', %(at)s, %(at)s,"
        " %(at)s + make_interval(secs => %(ms)s / 1000.0), 1 FROM generate_series(1, %(events)s)",
        {"tenant": tenant, "at": at, "ms": ms, "events": events},
    )
    conn.execute(
        "INSERT INTO account.deltas (tenant_id, hour, lane, received, accepted, claimed, enriched, delivered)"
        " SELECT %s, date_trunc('hour', %s::timestamptz, 'UTC'), 'live', n, n, n, n, n"
        " FROM (VALUES (%s::bigint)) AS v(n)",
        (tenant, at, events),
    )


@pytest.mark.parametrize(
    ("windows", "is_slow"),
    [
        ("x.....", False),  # a file sent at full speed, and silence before it
        ("xx....", False),  # the same over the border of two windows
        ("xxo...", False),
        ("xxx", True),
        ("oxxx", False),  # over
        ("xxoxx.", False),  # once in time
        (".x.x.x", True),  # silence neither ends it
        ("x..x..x", False),  # nor is it missed: too few within six windows
        ("fxfxfx", True),  # nor is what few events say
        ("fff", False),
        ("......", False),
    ],
)
def test_it_opens_when_each_of_the_newest_windows_with_events_missed(
    conn: Conn, judging: Settings, windows: str, is_slow: bool
) -> None:
    deliver(conn, add_tenants(conn, "acme")[0].tenant_id, windows)
    found = look_at(conn, judging, _LATENCY)
    assert [(each.kind, each.tenant_id) for each in found] == [("latency_high", None)] * is_slow


def test_it_says_what_lasted_since_when(conn: Conn, judging: Settings) -> None:
    deliver(conn, add_tenants(conn, "acme")[0].tenant_id, ".xxxo")
    (found,) = look_at(conn, judging, _LATENCY)
    assert found.occurrences == 300
    assert found.message == (
        "p95 50.0 ms from acceptance to delivery (worst 50.0 ms): over the objective of 12 ms in each of the last 3 "
        "windows of 60 s with events"
    )
    (age_s,) = conn.execute(
        "SELECT extract(epoch FROM clock_timestamp() - opened_at)::float8 FROM control.alerts"
    ).fetchone() or (0.0,)
    assert 240 <= age_s < 300
    sample = "SELECT delivered_at - received_at FROM analytics.events WHERE event_id = %s::uuid"
    assert conn.execute(sample, (found.sample_id,)).fetchone() == (timedelta(milliseconds=_MISSED_MS),)


def test_a_tenant_that_is_slow_alone_is_its_own_alert(conn: Conn, judging: Settings) -> None:
    acme, globex, initech = (tenant.tenant_id for tenant in add_tenants(conn, "acme", "globex", "initech"))
    deliver(conn, acme, "ooo", events=1_000)
    deliver(conn, globex, "xxx", events=20)
    deliver(conn, initech, ".xoxx", events=20)
    assert [each.tenant_id for each in look_at(conn, judging, _LATENCY)] == [globex]


def test_a_window_in_time_ends_it(conn: Conn, judging: Settings) -> None:
    (acme,) = add_tenants(conn, "acme")
    open_ones = "SELECT count(*) FROM control.alerts WHERE resolved_at IS NULL"
    deliver(conn, acme.tenant_id, "..xxx")
    look_at(conn, judging, _LATENCY)
    look_at(conn, judging, _LATENCY)
    assert conn.execute(open_ones).fetchone() == (1,), "nobody sent anything for two windows"
    deliver(conn, acme.tenant_id, "o")
    look_at(conn, judging, _LATENCY)
    assert conn.execute(open_ones).fetchone() == (0,)


def test_imported_history_is_not_late(conn: Conn, judging: Settings) -> None:
    deliver(conn, add_tenants(conn, "acme")[0].tenant_id, "xxx")
    conn.execute("INSERT INTO control.imports VALUES (repeat('a', 64), 'a file', '0', now())")
    conn.execute(
        "INSERT INTO control.import_chunks SELECT repeat('a', 64), hour, 0, 1, 300, 0 FROM queue.hours"
        " WHERE EXISTS (SELECT FROM account.deltas AS d WHERE d.hour = hours.hour)"
    )
    assert look_at(conn, judging, _LATENCY) == []
    assert objectives_of(conn, judging)["latency"]["p95_ms"] is None
