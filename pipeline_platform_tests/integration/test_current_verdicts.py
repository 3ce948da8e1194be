"""An event has one current verdict of the comparison, whatever windows it was compared in; the alert follows it."""

import uuid
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from pipeline_platform.db import queries
from pipeline_platform.migration.reconcile import reconcile
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.migration import legacy_has, open_epoch, settle
from pipeline_platform_tests.support.queue import accept_ids
from pipeline_platform_tests.support.tenants import Tenant, add_tenants
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]


def _now(conn: Conn) -> datetime:
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row
    return row[0]


@pytest.fixture
def acme(conn: Conn) -> Tenant:
    open_epoch(conn, "shadow")
    return add_tenants(conn, "acme")[0]


@pytest.fixture
def ids(conn: Conn, settings: Settings, acme: Tenant) -> list[uuid.UUID]:
    """Ten events that both pipelines delivered, settled."""
    made = [uuid.uuid4() for _ in range(10)]
    accept_ids(conn, acme.tenant_id, made)
    drain(settings)
    legacy_has(conn)
    settle(conn)
    return made


def _drift(conn: Conn) -> list[tuple[int | None, int]]:
    """What the alert on drift says: tenant and number of events."""
    return [(row[1], row[4]) for row in conn.execute(queries("alerts")["drift"])]


def test_windows_that_overlap_count_an_event_once(conn: Conn, acme: Tenant, ids: list[uuid.UUID]) -> None:
    conn.execute("DELETE FROM legacy.events WHERE event_id = ANY(%s)", (ids[:3],))
    now = _now(conn)
    for back in (4, 3, 2, 1):
        assert reconcile(conn, now - timedelta(hours=back), now).is_settled
    assert _drift(conn) == [(acme.tenant_id, 3)]
    later = _now(conn)
    reconcile(conn, now - timedelta(minutes=30), later)
    assert _drift(conn) == [(acme.tenant_id, 3)], "a window that reaches beyond the one before"


def test_an_hour_that_is_clean_again_ends_the_drift_of_a_larger_window(conn: Conn, ids: list[uuid.UUID]) -> None:
    conn.execute("DELETE FROM legacy.events WHERE event_id = ANY(%s)", (ids[:3],))
    now = _now(conn)
    reconcile(conn, now - timedelta(hours=4), now)
    legacy_has(conn, ids[:3])
    found = reconcile(conn, now - timedelta(minutes=30), now)
    assert found.is_settled and found.has_parity
    assert _drift(conn) == [] and conn.execute("SELECT count(*) FROM reconcile.differences").fetchone() == (0,)


def test_an_unsettled_window_supersedes_no_settled_one(conn: Conn, acme: Tenant, ids: list[uuid.UUID]) -> None:
    conn.execute("DELETE FROM legacy.events WHERE event_id = ANY(%s)", (ids[:3],))
    now = _now(conn)
    reconcile(conn, now - timedelta(minutes=30), now)
    assert not reconcile(conn, now - timedelta(hours=1), now + timedelta(hours=1)).is_settled
    assert _drift(conn) == [(acme.tenant_id, 3)]


def test_drift_of_many_tenants_is_one_alert(conn: Conn, settings: Settings, acme: Tenant) -> None:
    made = [uuid.uuid4() for _ in range(7)]
    for tenant, one in zip(add_tenants(conn, *(f"t{place}" for place in range(7))), made, strict=True):
        accept_ids(conn, tenant.tenant_id, [one])
    drain(settings)
    settle(conn)
    now = _now(conn)
    reconcile(conn, now - timedelta(hours=1), now)
    assert _drift(conn) == [(None, 7)]
