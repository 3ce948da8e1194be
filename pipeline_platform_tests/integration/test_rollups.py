"""Roll-ups are what the rows are, whatever changes the rows: by tenant and hour, type and name."""

import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pipeline_platform.analytics import rollups
from pipeline_platform.analytics.agreement import agree, compare
from pipeline_platform.analytics.export import count_hour
from pipeline_platform.db import connect
from pipeline_platform.lookups import Lookups
from pipeline_platform.queue.keeper import LOCK_TIMEOUT_S, Keeper
from pipeline_platform.recovery.dropped import Window
from pipeline_platform.recovery.recover import recover
from pipeline_platform.replay import steps
from pipeline_platform.replay.plan import Scope, make_plan
from pipeline_platform.settings import Settings
from pipeline_platform.worker.engine import PLANNING, Engine
from pipeline_platform_tests.integration.test_erasure import SECRET, World
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.ledger import Ledger, Tenant, add_tenants
from pipeline_platform_tests.support.legacy import turn
from pipeline_platform_tests.support.load import Load
from pipeline_platform_tests.support.migration import accept, deliver_all, old_pipeline_has, settle
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]
_HOUR = timedelta(hours=1)

# Every cell that differs from the rows, in either direction.
_WRONG = """
WITH counted AS (
    SELECT tenant_id, date_trunc('hour', occurred_at, 'UTC') AS hour,
           date_trunc('hour', received_at, 'UTC') AS received_hour, type, name, count(*) AS events
    FROM analytics.events GROUP BY 1, 2, 3, 4, 5)
(TABLE counted EXCEPT SELECT tenant_id, hour, received_hour, type, name, events FROM analytics.rollups)
UNION ALL
(SELECT tenant_id, hour, received_hour, type, name, events FROM analytics.rollups EXCEPT TABLE counted)
"""


def wrong(conn: Conn) -> list[Any]:
    return conn.execute(_WRONG).fetchall()


def refreshed(conn: Conn) -> list[Any]:
    rollups.refresh_all(conn)
    return wrong(conn)


def _one(conn: Conn, query: str, *params: Any) -> Any:
    row = conn.execute(query, params).fetchone()  # pyright: ignore[reportArgumentType]
    return row[0] if row else None


def hours(conn: Conn) -> list[datetime]:
    return [hour for (hour,) in conn.execute("SELECT hour FROM queue.hours ORDER BY hour").fetchall()]


def assert_all_agree(conn: Conn) -> None:
    """Roll-ups, export and account, for every tenant and hour, and not because nothing was judged."""
    found = [agree(conn, hour) for hour in hours(conn)]
    assert [
        (one.waiting, [each.text() for each in one.differences]) for one in found if one.waiting or not one.holds
    ] == []
    assert sum(one.events for one in found) == _one(conn, "SELECT count(*) FROM analytics.events") > 0


@pytest.fixture
def world(conn: Conn, settings: Settings) -> Iterator[World]:
    lookups = Lookups(settings, settings.redis_url)
    with connect(settings.database_url, "test worker", more=PLANNING) as working:
        yield World(conn, settings, Engine(settings, working, lookups), lookups)
    lookups.close()


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
    assert _one(conn, "SELECT sum(events) FROM analytics.rollups") == 42
    assert _one(conn, "SELECT count(*) FROM analytics.rollups WHERE name IS NULL") == 1
    assert _one(conn, "SELECT count(DISTINCT hour) FROM analytics.rollups") == 3
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
    assert _one(conn, "SELECT count(*) FROM analytics.events") == 32
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
    assert _one(conn, "SELECT sum(events) FROM analytics.rollups WHERE name = 'Mangled'") is None
    assert_all_agree(conn)
    world.replay(lambda: steps.start_undo(conn, replay, "a test"))
    assert refreshed(conn) == []
    assert conn.execute("SELECT * FROM analytics.rollups ORDER BY 1, 2, 3, 4, 5").fetchall() == damaged


def test_cutover_and_recovery(conn: Conn, settings: Settings) -> None:
    acme = add_tenants(conn, "acme")[0]
    turn(conn, "shadow")
    ids = sorted(uuid.uuid4() for _ in range(10))
    accept(conn, acme.tenant_id, ids)
    deliver_all(settings)
    assert refreshed(conn) == []
    assert _one(conn, "SELECT count(*) FROM analytics.rollups") == 0, "what is shadow is no production"
    old_pipeline_has(conn, ids[:7])
    settle(conn)
    now = datetime.now(UTC)
    assert recover(conn, Window(now - _HOUR, now), reason="dropped").recovered == 3
    assert refreshed(conn) == []
    assert _one(conn, "SELECT sum(events) FROM analytics.rollups") == 3
    turn(conn, "platform_primary")
    accept(conn, acme.tenant_id, [uuid.uuid4() for _ in range(5)])
    deliver_all(settings)
    assert refreshed(conn) == []
    assert _one(conn, "SELECT sum(events) FROM analytics.rollups") == 8
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
        deliver_all(settings)
        assert conn.execute("SELECT queue.seal_hour(%s)", (hour,)).fetchone() == (True,)
        assert refreshed(conn) == []
        assert agree(conn, hour).holds
    cell = "SELECT sum(events) FROM analytics.rollups WHERE tenant_id = %s AND hour = %s AND received_hour = %s"
    assert _one(conn, cell, tenant.tenant_id, hour - _HOUR, hour) == 20  # fmt: skip


def _insert(conn: Conn, tenant: int, received_at: datetime, name: str = "E") -> None:
    conn.execute(
        "INSERT INTO analytics.events (tenant_id, event_id, message_id, type, name, occurred_at, received_at,"
        " delivered_at, batch_id) VALUES (%s, gen_random_uuid(), 'm', 'track', %s, %s, %s, now(), 1)",
        (tenant, name, received_at, received_at),
    )


def _mark(conn: Conn, tenant: int, hour: datetime) -> None:
    conn.execute("INSERT INTO analytics.rollup_marks (tenant_id, received_hour) VALUES (%s, %s)", (tenant, hour))


@pytest.fixture
def hour(conn: Conn) -> datetime:
    found = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - _HOUR
    conn.execute("SELECT queue.open_hour(%s)", (found,))
    return found


def test_a_row_that_a_refresh_cannot_see_yet_keeps_its_mark(conn: Conn, database_url: str, hour: datetime) -> None:
    _insert(conn, 1, hour)
    _mark(conn, 1, hour)
    with psycopg.connect(database_url) as writer:
        _insert(writer, 1, hour)
        _mark(writer, 1, hour)
        assert rollups.refresh(conn) == 1
        assert _one(conn, "SELECT events FROM analytics.rollups") == 1
    assert _one(conn, "SELECT count(*) FROM analytics.unrolled") == 1
    assert refreshed(conn) == []
    assert _one(conn, "SELECT events FROM analytics.rollups") == 2


def test_a_load_is_marked_by_its_delta_before_and_after_the_fold(conn: Conn, world: World) -> None:
    conn.execute("SELECT account.fold()")
    world.accept(world.event("one"))
    world.drain()
    assert _one(conn, "SELECT count(*) FROM analytics.rollup_marks") == 0
    assert _one(conn, "SELECT count(*) FROM analytics.unrolled") == 1
    assert rollups.refresh(conn) == 0
    conn.execute("SELECT account.fold()")
    assert _one(conn, "SELECT count(*) FROM analytics.unrolled") == 1
    assert rollups.refresh(conn) == 1
    assert wrong(conn) == []


def test_no_older_count_is_written_over_a_newer_one(conn: Conn, database_url: str, hour: datetime) -> None:
    _insert(conn, 1, hour)
    _mark(conn, 1, hour)
    with psycopg.connect(database_url) as slow:
        assert slow.execute("SELECT analytics.refresh_rollups(10)").fetchone() == (1,)
        _insert(conn, 1, hour)
        _mark(conn, 1, hour)
        assert rollups.refresh(conn) is None, "two at a time"
    assert refreshed(conn) == []
    with psycopg.connect(database_url) as frozen:
        frozen.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with pytest.raises(psycopg.errors.InvalidTransactionState):
            frozen.execute("SELECT analytics.refresh_rollups(10)")


def test_writers_and_refreshers_at_once(conn: Conn, database_url: str, hour: datetime) -> None:
    """Rows come and go in transactions of every length, while several refresh: what is not marked is right, always."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def guarded(run: Callable[[Conn, int], None], number: int) -> None:
        try:
            with psycopg.connect(database_url, autocommit=True) as own:
                while not stop.is_set():
                    run(own, number)
        except BaseException as error:  # noqa: BLE001 -- raised again below
            failed.append(error)

    def write(own: Conn, number: int) -> None:
        with own.transaction():
            tenant = 1 + number % 3
            for name in "AB":
                _insert(own, tenant, hour + timedelta(seconds=number), name)
            own.execute("DELETE FROM analytics.events WHERE tenant_id = %s AND event_id < gen_random_uuid()"
                        " AND name = 'B' AND received_at = %s", (tenant, hour + timedelta(seconds=number)))  # fmt: skip
            _mark(own, tenant, hour)

    def refresh(own: Conn, _: int) -> None:
        rollups.refresh(own, 2)

    judged = 0
    threads = [threading.Thread(target=guarded, args=(write, number)) for number in range(4)]
    threads += [threading.Thread(target=guarded, args=(refresh, number)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        with psycopg.connect(database_url) as reader:
            reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            while judged < 40 and not failed:
                with reader.transaction():
                    waiting = {row[0] for row in reader.execute("SELECT tenant_id FROM analytics.unrolled")}
                    assert [row for row in wrong(reader) if row[0] not in waiting] == []
                    judged += 3 - len(waiting)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not failed, failed
    assert refreshed(conn) == []


def test_a_killed_refresh_is_taken_up(conn: Conn, settings: Settings, hour: datetime) -> None:
    conn.execute(
        "INSERT INTO analytics.events (tenant_id, event_id, message_id, type, occurred_at, received_at, delivered_at,"
        " batch_id) SELECT t, gen_random_uuid(), 'm', 'track', %(hour)s, %(hour)s, now(), 1"
        " FROM generate_series(1, 2000) AS t",
        {"hour": hour},
    )
    conn.execute("INSERT INTO analytics.rollup_marks (tenant_id, received_hour) SELECT t, %s"
                 " FROM generate_series(1, 2000) AS t", (hour,))  # fmt: skip
    code = (
        "import sys, psycopg; from pipeline_platform.analytics.rollups import refresh_all;"
        "refresh_all(psycopg.connect(sys.argv[1], autocommit=True), 1)"
    )
    left = "SELECT count(*) FROM analytics.rollup_marks"
    process = subprocess.Popen([sys.executable, "-c", code, settings.database_url])
    try:
        wait_for("some to be done", lambda: _one(conn, left) < 1_900)
    finally:
        process.kill()
        process.wait()
    assert 0 < _one(conn, left) < 2_000
    assert {row[0] for row in wrong(conn)} == {
        row[0] for row in conn.execute("SELECT tenant_id FROM analytics.unrolled")
    }
    assert refreshed(conn) == []


def test_the_keeper_keeps_them_fresh(conn: Conn, world: World, settings: Settings) -> None:
    _fill(world)
    with connect(settings.database_url, "keeper", lock_timeout_s=LOCK_TIMEOUT_S) as keeping:
        Keeper(settings).tick(keeping)
    assert _one(conn, "SELECT count(*) FROM analytics.unrolled") == 0
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
    at = _one(conn, "UPDATE analytics.rollups SET events = events + 1 WHERE name = 'Bought' AND hour >="
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


def test_people_are_counted_from_the_rows(conn: Conn, world: World) -> None:
    _fill(world)
    rollups.refresh_all(conn)
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    people = "SELECT * FROM analytics.people(%s, %s, %s) ORDER BY hour NULLS LAST"
    found = conn.execute(people, (world.tenant, now - _HOUR, now + _HOUR)).fetchall()
    expected = _one(conn, "SELECT count(DISTINCT user_id) FROM analytics.events WHERE message_id <> 'late'")
    assert [hour for hour, _ in found] == [now - _HOUR, now, None]
    assert expected == found[-1][1] == 8
