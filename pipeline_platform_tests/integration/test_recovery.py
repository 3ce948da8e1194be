"""Recovery: production gets what the old pipeline dropped, once, and keeps what it has."""

import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pipeline_platform.account.audit import audit
from pipeline_platform.errors import NotNowError
from pipeline_platform.migration.recovery.dropped import Window, find_dropped
from pipeline_platform.migration.recovery.recover import recover
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.migration import legacy_has, open_epoch, settle
from pipeline_platform_tests.support.queue import accept_ids
from pipeline_platform_tests.support.tenants import Tenant, add_tenants
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]


def _all() -> Window:
    now = datetime.now(UTC)
    return Window(now - timedelta(hours=2), now)


def _production(conn: Conn) -> list[tuple[uuid.UUID, str]]:
    return conn.execute("SELECT event_id, pipeline FROM analytics.production ORDER BY event_id").fetchall()


@pytest.fixture
def acme(conn: Conn) -> Tenant:
    return add_tenants(conn, "acme")[0]


@pytest.fixture
def ids(conn: Conn, settings: Settings, acme: Tenant) -> list[uuid.UUID]:
    """Ten events of a shadow epoch, of which the old pipeline has the first seven."""
    made = sorted(uuid.uuid4() for _ in range(10))
    open_epoch(conn, "shadow")
    accept_ids(conn, acme.tenant_id, made)
    drain(settings)
    legacy_has(conn, made[:7])
    settle(conn)
    return made


def test_what_was_dropped_is_recovered_once(conn: Conn, ids: list[uuid.UUID], acme: Tenant) -> None:
    conn.execute("INSERT INTO legacy.losses VALUES (%s, %s, 'lookup', 'time-out')", (acme.tenant_id, ids[7]))
    found = find_dropped(conn, _all())
    assert (found.tenants, found.stages) == ({"acme": 3}, {"unreported": 2, "lookup": 1})
    looked = recover(conn, _all(), reason="", dry_run=True)
    assert (looked.recovery_id, looked.recovered, looked.tenants, looked.missing_after) == (None, 0, {"acme": 3}, 3)
    assert len(_production(conn)) == 7
    done = recover(conn, _all(), reason="dropped at the peak")
    assert (done.recovered, done.tenants, done.missing_after) == (3, {"acme": 3}, 0)
    assert _production(conn) == [(each, "legacy" if each in ids[:7] else "platform") for each in ids]
    again = recover(conn, _all(), reason="again")
    assert (again.recovered, again.dropped.already, again.missing_after) == (0, 3, 0)
    assert not audit(conn).differences
    logged = conn.execute("SELECT action, reason, detail->>'events' FROM control.audit_log").fetchall()
    assert logged == [("recovery", "dropped at the peak", "3")]


def test_a_late_row_of_the_old_pipeline_does_not_double_production(conn: Conn, ids: list[uuid.UUID]) -> None:
    recover(conn, _all(), reason="x")
    legacy_has(conn, ids[9:])
    assert [each for each, _ in _production(conn)] == ids


def test_what_was_delivered_after_its_key_was_gone_is_not_recovered_too(
    conn: Conn, settings: Settings, ids: list[uuid.UUID], acme: Tenant
) -> None:
    conn.execute("DELETE FROM analytics.keys")
    open_epoch(conn, "platform_primary")
    accept_ids(conn, acme.tenant_id, [ids[9]])
    drain(settings)
    settle(conn)
    assert recover(conn, _all(), reason="x").recovered == 2
    assert [each for each, _ in _production(conn)] == ids


def test_what_is_recovered_after_its_key_was_gone_is_recognised(
    conn: Conn, settings: Settings, ids: list[uuid.UUID], acme: Tenant
) -> None:
    conn.execute("DELETE FROM analytics.keys")
    assert recover(conn, _all(), reason="x").recovered == 3
    open_epoch(conn, "platform_primary")
    accept_ids(conn, acme.tenant_id, ids[7:])
    drain(settings)
    assert [each for each, _ in _production(conn)] == ids


def test_a_window_that_may_still_change_is_refused(conn: Conn, settings: Settings, acme: Tenant) -> None:
    open_epoch(conn, "shadow")
    accept_ids(conn, acme.tenant_id, [uuid.uuid4()])
    with pytest.raises(NotNowError, match="1 events are in flight"):
        recover(conn, _all(), reason="x")
    drain(settings)
    with pytest.raises(NotNowError, match="wait for the mirror"):
        recover(conn, _all(), reason="x")
    conn.execute("DELETE FROM queue.mirror")
    with pytest.raises(NotNowError, match="may deliver for another"):
        recover(conn, _all(), reason="x")
    conn.execute("UPDATE control.legacy_target SET settle_s = 0")
    assert recover(conn, _all(), reason="x").recovered == 1


def test_what_the_platform_owns_is_none_of_its_business(conn: Conn, settings: Settings, acme: Tenant) -> None:
    open_epoch(conn, "platform_primary")
    accept_ids(conn, acme.tenant_id, [uuid.uuid4()])
    drain(settings)
    settle(conn)
    assert find_dropped(conn, _all()).events == 0


@pytest.mark.parametrize("place", ["recovery.before_commit:2", "recovery.after_commit:2"])
def test_a_killed_recovery_is_finished_by_the_next(conn: Conn, settings: Settings, acme: Tenant, place: str) -> None:
    open_epoch(conn, "shadow")
    made = [uuid.uuid4() for _ in range(12_000)]
    for at in range(0, len(made), 4_000):
        accept_ids(conn, acme.tenant_id, made[at : at + 4_000])
    drain(settings)
    legacy_has(conn, made[:100])
    settle(conn)
    killed = run_command(settings, "recover", "--reason", "first", **{"kill_point": place})
    assert killed.code == -9
    row = conn.execute("SELECT count(*) FROM analytics.events").fetchone()
    assert row and row[0] == (5_000 if "before" in place else 10_000)
    done = run_command(settings, "recover", "--reason", "second", "--json")
    assert done.code == 0 and done.answer["recovered"] == 11_900 - row[0] and done.answer["missing_after"] == 0
    assert (
        conn.execute("SELECT count(*), count(DISTINCT event_id) FROM analytics.production").fetchone() == (12_000,) * 2
    )
    assert run_command(settings, "recover", "--reason", "third", "--json").answer["recovered"] == 0
    assert not audit(conn).differences


def test_two_recoveries_at_once_move_each_row_once(conn: Conn, settings: Settings, ids: list[uuid.UUID]) -> None:
    environment = os.environ | {
        "PIPELINE_HOME": str(settings.home), "PIPELINE_DATABASE_URL": settings.database_url,
        "PIPELINE_REDIS_URL": settings.redis_url,
    }  # fmt: skip
    command = [sys.executable, "-c", "from pipeline_platform.cli import main; main()", "recover", "--reason", "both"]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert [each for each, _ in _production(conn)] == ids


def test_the_command_says_what_it_would_add(settings: Settings, ids: list[uuid.UUID]) -> None:
    looked = run_command(settings, "recover", "--last", "1h", "--dry-run", "--json").answer
    assert (looked["dropped"], looked["recovered"], looked["tenants"]) == (3, 0, [{"tenant": "acme", "events": 3}])
    assert run_command(settings, "recover").code == 2
    assert run_command(settings, "recover", "--dry-run", "--tenant", "nobody").code == 1
    assert "would recover 3 events" in run_command(settings, "recover", "--dry-run").out
