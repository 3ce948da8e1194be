"""Roll-ups are what the rows are, whatever changes the rows: by tenant and hour, type and name."""

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pipeline_platform.analytics import rollups
from pipeline_platform.analytics.agreement import agree, compare
from pipeline_platform.analytics.export import count_hour
from pipeline_platform.db import connect
from pipeline_platform.migration.recovery.dropped import Window
from pipeline_platform.migration.recovery.recover import recover
from pipeline_platform.queue.keeper import LOCK_TIMEOUT_S, Keeper
from pipeline_platform.replay import steps
from pipeline_platform.replay.plan import Scope, make_plan
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.erasure import SECRET, World
from pipeline_platform_tests.support.ledger import Ledger
from pipeline_platform_tests.support.load import Load
from pipeline_platform_tests.support.migration import legacy_has, open_epoch, settle
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.queue import accept_ids
from pipeline_platform_tests.support.rollups import first_value, refreshed, wrong
from pipeline_platform_tests.support.tenants import Tenant, add_tenants
from pipeline_platform_tests.support.workers import Workers, drain

Conn = psycopg.Connection[Any]
_HOUR = timedelta(hours=1)


def hours(conn: Conn) -> list[datetime]:
    return [hour for (hour,) in conn.execute("SELECT hour FROM queue.hours ORDER BY hour").fetchall()]


def assert_all_agree(conn: Conn) -> None:
    """Roll-ups, export and account, for every tenant and hour, and not because nothing was judged."""
    found = [agree(conn, hour) for hour in hours(conn)]
    assert [
        (one.waiting, [each.text() for each in one.differences]) for one in found if one.waiting or not one.holds
    ] == []
    assert sum(one.events for one in found) == first_value(conn, "SELECT count(*) FROM analytics.events") > 0


@pytest.fixture
def world(conn: Conn, settings: Settings, workers: Workers) -> World:
    return World(conn, settings, workers)


def _fill(world: World, count: int = 40) -> None:
    """Of two hours of occurred_at, three names, one without a name, one late by a year; some of the person's."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    events = [
        replace(world.event(f"m{n}", event=("Bought", "Looked", "")[n % 3], userId=f"u{n % 7}" if n % 4 else SECRET),
                client_at=now - _HOUR * (n % 2))
        for n in range(count)
    ]  # fmt: skip
    late = world.event("late", event="Bought", userId="u1")
    events.append(replace(late, client_at=now - timedelta(days=365)))
    events.append(world.event("id", type="identify", userId="u1", traits={"plan": "pro"}))
    for at in range(0, len(events), 9):
        world.accept(*events[at : at + 9])
    world.drain()


def test_loads_duplicates_and_late_events(conn: Conn, world: World) -> None:
    _fill(world)
    assert refreshed(conn) == []
    assert first_value(conn, "SELECT sum(events) FROM analytics.rollups") == 42
    assert first_value(conn, "SELECT count(*) FROM analytics.rollups WHERE name IS NULL") == 1
    assert first_value(conn, "SELECT count(DISTINCT hour) FROM analytics.rollups") == 3
    before = conn.execute("SELECT ctid, * FROM analytics.rollups ORDER BY 1").fetchall()
    _fill(world)
    assert refreshed(conn) == []
    assert conn.execute("SELECT ctid, * FROM analytics.rollups ORDER BY 1").fetchall() == before, (
        "duplicates wrote cells"
    )
    assert_all_agree(conn)


def test_erasure(conn: Conn, world: World) -> None:
    _fill(world)
    rollups.refresh_all(conn)
    world.erase()
    assert first_value(conn, "SELECT count(*) FROM analytics.events") == 32
    assert refreshed(conn) == []
    assert_all_agree(conn)


def test_replay_commit_and_undo(conn: Conn, world: World) -> None:
    _fill(world)
    rollups.refresh_all(conn)
    assert_all_agree(conn)
    # A bug had renamed some, and lost others with their keys: what the replay changes, and what it adds.
    conn.execute("UPDATE analytics.events SET name = 'Mangled', occurred_at = occurred_at - interval '5 hours'"
                 " WHERE message_id < 'm2'")  # fmt: skip
    conn.execute("DELETE FROM analytics.events WHERE message_id > 'm7'")
    conn.execute("DELETE FROM analytics.keys AS k WHERE NOT EXISTS"
                 " (SELECT FROM analytics.events AS e WHERE e.event_id = k.event_id)")  # fmt: skip
    conn.execute("INSERT INTO analytics.events SELECT (jsonb_populate_record(e, jsonb_build_object("
                 "'event_id', gen_random_uuid(), 'message_id', 'stray'))).* FROM analytics.events AS e"
                 " WHERE message_id = 'late'")  # fmt: skip
    rollups.mark(conn, hours(conn))
    assert refreshed(conn) == []
    damaged = conn.execute("SELECT * FROM analytics.rollups ORDER BY 1, 2, 3, 4, 5").fetchall()
    now = datetime.now(UTC)
    replay = make_plan(conn, Scope(now - _HOUR, now), "a test").replay_id
    world.replay(lambda: steps.start_diff(conn, replay))
    world.replay(lambda: steps.start_commit(conn, replay))
    done = conn.execute("SELECT committed_as, count(*) FROM replay.scratch GROUP BY 1 ORDER BY 1").fetchall()
    assert {kind for kind, _ in done} == {"added", "changed", "removed"}
    assert refreshed(conn) == []
    assert first_value(conn, "SELECT sum(events) FROM analytics.rollups WHERE name = 'Mangled'") is None
    assert_all_agree(conn)
    world.replay(lambda: steps.start_undo(conn, replay, "a test"))
    assert refreshed(conn) == []
    assert conn.execute("SELECT * FROM analytics.rollups ORDER BY 1, 2, 3, 4, 5").fetchall() == damaged


def test_cutover_and_recovery(conn: Conn, settings: Settings) -> None:
    acme = add_tenants(conn, "acme")[0]
    open_epoch(conn, "shadow")
    ids = sorted(uuid.uuid4() for _ in range(10))
    accept_ids(conn, acme.tenant_id, ids)
    drain(settings)
    assert refreshed(conn) == []
    assert first_value(conn, "SELECT count(*) FROM analytics.rollups") == 0, "what is shadow is no production"
    legacy_has(conn, ids[:7])
    settle(conn)
    now = datetime.now(UTC)
    assert recover(conn, Window(now - _HOUR, now), reason="dropped").recovered == 3
    assert refreshed(conn) == []
    assert first_value(conn, "SELECT sum(events) FROM analytics.rollups") == 3
    open_epoch(conn, "platform_primary")
    accept_ids(conn, acme.tenant_id, [uuid.uuid4() for _ in range(5)])
    drain(settings)
    assert refreshed(conn) == []
    assert first_value(conn, "SELECT sum(events) FROM analytics.rollups") == 8
    assert_all_agree(conn)


def test_an_import_into_a_sealed_hour(conn: Conn, settings: Settings) -> None:
    tenant = add_tenants(conn, "acme")[0]
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - 3 * _HOUR
    lines = [
        json.dumps({"type": "track", "tenant": "acme", "event": "Old", "messageId": f"h{n}", "userId": "u",
                    "received_at": (hour + timedelta(minutes=n)).isoformat(), "timestamp": (hour - _HOUR).isoformat()})
        for n in range(20)
    ]  # fmt: skip
    file = settings.home / "old.ndjson"
    for part in (lines[:12], lines[8:]):
        file.write_text("\n".join(part))
        done = run_command(settings, "import", str(file), "--tenant-field", "tenant", "--received-at", "received_at")
        assert done.code == 0, done.err
        drain(settings)
        assert conn.execute("SELECT queue.seal_hour(%s)", (hour,)).fetchone() == (True,)
        assert refreshed(conn) == []
        assert agree(conn, hour).holds
    cell = "SELECT sum(events) FROM analytics.rollups WHERE tenant_id = %s AND hour = %s AND received_hour = %s"
    assert first_value(conn, cell, tenant.tenant_id, hour - _HOUR, hour) == 20  # fmt: skip


def test_a_load_is_marked_by_its_delta_before_and_after_the_fold(conn: Conn, world: World) -> None:
    conn.execute("SELECT account.fold()")
    world.accept(world.event("one"))
    world.drain()
    assert first_value(conn, "SELECT count(*) FROM analytics.rollup_marks") == 0
    assert first_value(conn, "SELECT count(*) FROM analytics.unrolled") == 1
    assert rollups.refresh(conn) == 0
    conn.execute("SELECT account.fold()")
    assert first_value(conn, "SELECT count(*) FROM analytics.unrolled") == 1
    assert rollups.refresh(conn) == 1
    assert wrong(conn) == []


def test_the_keeper_keeps_them_fresh(conn: Conn, world: World, settings: Settings) -> None:
    _fill(world)
    with connect(settings.database_url, "keeper", lock_timeout_s=LOCK_TIMEOUT_S) as keeping:
        Keeper(settings).tick(keeping)
    assert first_value(conn, "SELECT count(*) FROM analytics.unrolled") == 0
    assert wrong(conn) == []


def test_under_load_and_kills_all_agree_in_the_end(conn: Conn, settings: Settings) -> None:
    """The real processes; a replay and an erasure in the middle of it, and comparisons that may never fail."""
    ledger = Ledger(7)
    tenants: list[Tenant] = add_tenants(conn, "acme", "globex", "initech")
    found: list[str] = []
    with Platform(settings) as platform:
        platform.start_gateway()
        platform.start_workers(2)
        with Load(platform.port, ledger, tenants, senders=3) as load:
            load.await_acknowledged(300)
            replay = make_plan(conn, Scope(datetime.now(UTC) - _HOUR, datetime.now(UTC)), "a test").replay_id
            conn.execute("UPDATE analytics.events SET name = 'Mangled' WHERE user_id = 'u1'")
            rollups.mark(conn, hours(conn))
            steps.start_diff(conn, replay)
            steps.wait(conn, replay)
            steps.start_commit(conn, replay)
            done = run_command(settings, "erase", "--tenant", "acme", "--user", "u2", "--reason", "test")
            assert done.code == 0, done.err
            steps.wait(conn, replay)
            for hour in hours(conn):
                found += [each.text() for each in compare(conn, hour).differences if each.kind == "rollups"]
            load.await_acknowledged(300)
        platform.await_drained(conn)
    assert found == []
    assert refreshed(conn) == []
    assert_all_agree(conn)


def test_an_altered_cell_is_named(conn: Conn, world: World) -> None:
    _fill(world)
    hour = hours(conn)[0]
    assert agree(conn, hour).holds
    at = first_value(conn, "UPDATE analytics.rollups SET events = events + 1 WHERE name = 'Bought' AND hour >="
                    " (SELECT max(hour) FROM analytics.rollups) RETURNING hour")  # fmt: skip
    (one,) = agree(conn, hour).differences
    assert (one.kind, one.tenant, one.hour) == ("rollups", "acme", at)
    assert one.rolled_up == one.exported + 1 and one.cells == [("track", "Bought")]
    assert f"acme, {at:%Y-%m-%d %H}:00" in one.text()
    rollups.mark(conn, [hour])
    assert agree(conn, hour).holds


def test_a_row_that_went_missing_is_told_from_the_account(conn: Conn, world: World) -> None:
    _fill(world)
    hour = hours(conn)[0]
    rollups.refresh_all(conn)
    conn.execute("DELETE FROM analytics.events WHERE message_id = 'm4'")
    kinds = {each.kind: each for each in agree(conn, hour).differences}
    assert kinds.keys() == {"rollups", "account"}
    assert (kinds["account"].delivered, kinds["account"].exported) == (42, 41)
    assert sum(count_hour(conn, world.tenant, hour).values()) == 41


def test_as_many_rows_of_fewer_events_are_named(conn: Conn, world: World) -> None:
    _fill(world)
    hour = hours(conn)[0]
    assert agree(conn, hour).holds
    conn.execute(
        "INSERT INTO analytics.events SELECT (jsonb_populate_record(e, jsonb_build_object('received_at',"
        " e.received_at + interval '1 microsecond'))).* FROM analytics.events AS e WHERE message_id = 'm4';"
        " DELETE FROM analytics.events WHERE message_id = 'm5'"
    )
    rollups.mark(conn, [hour])
    (one,) = agree(conn, hour).differences
    assert (one.kind, one.exported, one.identities) == ("identities", 42, 41)
    assert one.text().endswith("42 rows of 41 events")


def test_people_are_counted_from_the_rows(conn: Conn, world: World) -> None:
    _fill(world)
    rollups.refresh_all(conn)
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    people = "SELECT * FROM analytics.people(%s, %s, %s) ORDER BY hour NULLS LAST"
    found = conn.execute(people, (world.tenant, now - _HOUR, now + _HOUR)).fetchall()
    expected = first_value(conn, "SELECT count(DISTINCT user_id) FROM analytics.events WHERE message_id <> 'late'")
    assert [hour for hour, _ in found] == [now - _HOUR, now, None]
    assert expected == found[-1][1] == 8
