"""Digests: kept with rows they are true, and where none is kept the comparison finds the same."""

import json
import uuid
from datetime import datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from pipeline_platform.lab.bench import reconciliation as bench
from pipeline_platform.migration.reconcile import Reconciliation, compare, reconcile
from pipeline_platform.migration.recovery.dropped import Window
from pipeline_platform.migration.recovery.recover import recover
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.migration import legacy_has, open_epoch, settle
from pipeline_platform_tests.support.queue import accept_ids
from pipeline_platform_tests.support.tenants import Tenant, add_tenants
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]


@pytest.fixture
def acme(conn: Conn) -> Tenant:
    open_epoch(conn, "shadow")
    return add_tenants(conn, "acme")[0]


@pytest.fixture
def ids(conn: Conn, settings: Settings, acme: Tenant) -> list[uuid.UUID]:
    """Ten events that both pipelines delivered, settled."""
    made = sorted(uuid.uuid4() for _ in range(10))
    accept_ids(conn, acme.tenant_id, made)
    drain(settings)
    legacy_has(conn)
    settle(conn)
    return made


@pytest.fixture
def one_place(conn: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    """All events are added up in one sum, so that differences could cancel out."""
    monkeypatch.setattr(compare, "_PLACES", 1)


def _window(conn: Conn) -> tuple[datetime, datetime]:
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row
    return row[0] - timedelta(hours=1), row[0]


def _compare(conn: Conn) -> Reconciliation:
    return reconcile(conn, *_window(conn))


def _stored(conn: Conn) -> set[tuple[str, uuid.UUID]]:
    return set(conn.execute("SELECT kind, event_id FROM reconcile.differences").fetchall())


def _kept(conn: Conn) -> tuple[int, int, int]:
    """Rows with a digest, rows without, and rows with a wrong one, of both pipelines."""
    row = conn.execute(
        "SELECT count(digest), count(*) FILTER (WHERE digest IS NULL), count(*) FILTER (WHERE digest <>"
        " reconcile.digest(reconcile.kept_columns(), tenant_id, event_id, type, name, user_id, anonymous_id, group_id,"
        " previous_id, message_id, occurred_at, properties, traits, context))"
        " FROM (SELECT tenant_id, event_id, type, name, user_id, anonymous_id, group_id, previous_id, message_id,"
        "       occurred_at, properties, traits, context, digest FROM account.delivered"
        "       UNION ALL"
        "       SELECT tenant_id, event_id, type, name, user_id, anonymous_id, group_id, previous_id, message_id,"
        "       occurred_at, properties, traits, context, digest FROM legacy.output) AS all_rows"
    ).fetchone()
    assert row
    return row


def _forget_digests(conn: Conn, table: LiteralString) -> None:
    """As rows from before there were any."""
    with conn.transaction():
        conn.execute("SET LOCAL session_replication_role = replica")
        conn.execute(f"UPDATE {table} SET digest = NULL")


def test_whoever_changes_a_row_its_digest_stays_true(conn: Conn, ids: list[uuid.UUID]) -> None:
    assert _kept(conn) == (20, 0, 0)
    for table in ("shadow.events", "legacy.events"):
        conn.execute(f"UPDATE {table} SET properties = '{{\"n\": -1}}', name = NULL WHERE event_id = %s", (ids[0],))
        conn.execute(f"UPDATE {table} SET digest = 1 WHERE event_id = %s", (ids[1],))
    assert _kept(conn) == (20, 0, 0)
    conn.execute("DELETE FROM legacy.events WHERE event_id = %s", (ids[2],))
    assert recover(conn, Window(*_window(conn)), reason="test").recovered == 1
    assert _kept(conn) == (19, 0, 0)


def test_production_keeps_digests_while_it_is_mirrored(
    conn: Conn, settings: Settings, ids: list[uuid.UUID], acme: Tenant
) -> None:
    for phase in ("platform_primary", "legacy_off"):
        open_epoch(conn, phase)
        accept_ids(conn, acme.tenant_id, [uuid.uuid4() for _ in range(5)])
        drain(settings)
    assert _kept(conn) == (25, 5, 0)


@pytest.mark.parametrize("without", [["shadow.events"], ["legacy.events"], ["shadow.events", "legacy.events"]])
def test_rows_without_a_digest_are_compared_all_the_same(
    conn: Conn, ids: list[uuid.UUID], without: list[LiteralString]
) -> None:
    conn.execute("UPDATE legacy.events SET name = 'Other' WHERE event_id = %s", (ids[0],))
    for table in without:
        _forget_digests(conn, table)
    found = _compare(conn)
    assert (found.totals.matched, found.fields) == (9, {"name": 1})


@pytest.mark.usefixtures("one_place")
def test_contents_exchanged_between_events_are_found(conn: Conn, ids: list[uuid.UUID]) -> None:
    for own, other in ((0, 1), (1, 0)):
        theirs = json.dumps({"n": other})
        conn.execute("UPDATE legacy.events SET properties = %s WHERE event_id = %s", (theirs, ids[own]))
    found = _compare(conn)
    assert found.fields == {"properties.n": 2}
    assert _stored(conn) == {("mismatched", event_id) for event_id in ids[:2]}


@pytest.mark.usefixtures("one_place")
def test_values_exchanged_between_columns_are_found(conn: Conn, ids: list[uuid.UUID]) -> None:
    conn.execute("UPDATE legacy.events SET user_id = name, name = user_id")
    assert _compare(conn).fields == {"name": 10, "user_id": 10}


@pytest.mark.usefixtures("one_place")
def test_two_that_are_stored_twice_do_not_stand_for_two_that_are_missing(conn: Conn, ids: list[uuid.UUID]) -> None:
    conn.execute("DELETE FROM legacy.events WHERE event_id = ANY(%s)", (ids[:2],))
    conn.execute("INSERT INTO legacy.events SELECT * FROM legacy.events WHERE event_id = ANY(%s)", (ids[2:4],))
    totals = _compare(conn).totals
    assert (totals.matched, totals.dropped, totals.duplicates) == (8, 2, 2)
    assert _stored(conn) == {(kind, event_id) for kind in ("dropped", "missing") for event_id in ids[:2]}


@pytest.mark.usefixtures("one_place")
def test_one_that_is_gone_is_found_however_often_it_was_sent(
    conn: Conn, settings: Settings, ids: list[uuid.UUID], acme: Tenant
) -> None:
    accept_ids(conn, acme.tenant_id, ids[:2])
    drain(settings)
    settle(conn)
    for table in ("shadow.events", "legacy.events"):
        conn.execute(f"DELETE FROM {table} WHERE event_id = ANY(%s)", (ids[:1],))
    totals = _compare(conn).totals
    assert (totals.accepted, totals.platform, totals.matched, totals.missing) == (10, 9, 9, 1)
    assert _stored(conn) == {("missing", ids[0])}


def test_the_benchmark_finds_all_that_it_plants(database_url: str) -> None:
    result = bench.measure(database_url, 20_000)
    assert (result.planted, result.wrongly_named) == (200, 0)
    assert "200 planted differences, 0 not found or false" in result.text()
    assert result.to_json()["dropping"]["ratio"] > 0
