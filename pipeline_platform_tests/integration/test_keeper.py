"""The queue's chores: bounded, independent, and never in the way of those who come later."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pipeline_platform.db import connect
from pipeline_platform.queue.keeper import (
    LOCK_TIMEOUT_S,
    Keeper,
    drop_old_hours,
    fold,
    open_partitions,
)
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.queue import accept_ids
from pipeline_platform_tests.support.tenants import add_tenants
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]

_LONG_AGO = "'2026-10-05T10:00Z'::timestamptz"


def test_a_long_read_postpones_a_drop_and_a_rotation(conn: Conn, database_url: str, settings: Settings) -> None:
    conn.execute(f"SELECT queue.open_hour({_LONG_AGO}), queue.seal_hour({_LONG_AGO})")
    conn.execute("UPDATE queue.hours SET sealed_at = hour + interval '1 hour'")
    conn.execute("UPDATE analytics.key_generations SET opened_at = now() - interval '2 days'")
    generations = "SELECT count(*) FROM analytics.key_generations"
    with (
        psycopg.connect(database_url) as reader,
        connect(database_url, "keeper", lock_timeout_s=LOCK_TIMEOUT_S) as keeper,
    ):
        reader.execute("SELECT count(*) FROM queue.batches")
        reader.execute("SELECT pg_advisory_xact_lock_shared(analytics.key_lock())")
        chores = Keeper(settings)
        chores.tick(keeper)
        failing = conn.execute("SELECT name FROM queue.chores WHERE last_error LIKE '%lock timeout%'").fetchall()
        assert failing == [("rotate_keys",)]
        assert "lock timeout" in next(iter(drop_old_hours(keeper, timedelta(hours=72)).values()))
        assert conn.execute(generations).fetchone() == (1,)
        reader.rollback()
        Keeper(settings).tick(keeper)
    assert conn.execute("SELECT count(*) FROM queue.hours WHERE dropped_at IS NOT NULL").fetchone() == (1,)
    assert conn.execute(generations).fetchone() == (2,)


def test_only_dead_letters_that_were_written_in_the_end_go_with_their_hour(conn: Conn, settings: Settings) -> None:
    """Unresolved and discarded ones stand for an event, and stay; so do all whose hour is kept."""
    kept = "'2026-10-05T11:00Z'::timestamptz"
    conn.execute(f"SELECT queue.open_hour({_LONG_AGO}), queue.open_hour({kept})")
    conn.execute(f"UPDATE queue.hours SET dropped_at = now() WHERE hour = {_LONG_AGO}")
    add_tenants(conn, "acme")
    states = ("waiting", "exhausted", "delivered", "duplicate", "discarded")
    for number, (hour, state) in enumerate((hour, state) for hour in (_LONG_AGO, kept) for state in states):
        conn.execute(
            f"""INSERT INTO queue.dead_letters (tenant_id, event_id, type, lane, batch_id, event_index,
                    batch_received_at, received_at, payload, failed_in, error_class, error, fingerprint, state,
                    attempts, next_attempt_at, resolved_at, reason)
                SELECT tenant_id, gen_random_uuid(), 't', 'live', %(number)s, 0, {hour}, {hour}, '{{}}', 'load', 'E',
                       'e', 'f', %(state)s, 1, CASE WHEN %(state)s = 'waiting' THEN 'infinity'::timestamptz END,
                       CASE WHEN %(is_resolved)s THEN now() - interval '73 hours' END, 'a test'
                FROM control.tenants""",
            {"number": number, "state": state, "is_resolved": state in states[2:]},
        )
    Keeper(settings).tick(conn)
    left = f"SELECT state FROM queue.dead_letters WHERE batch_received_at = {_LONG_AGO} ORDER BY state"
    assert [state for (state,) in conn.execute(left)] == ["discarded", "exhausted", "waiting"]
    assert conn.execute("SELECT count(*) FROM queue.dead_letters").fetchone() == (8,)


def test_a_long_read_holds_up_no_acceptance_whoever_drops(conn: Conn, database_url: str) -> None:
    """Retention by anybody's connection: here one that would wait for locks as long as Dagster's."""
    open_partitions(conn)
    (tenant,) = add_tenants(conn, "acme")
    _past_hours(conn, 3)
    with (
        psycopg.connect(database_url) as reader,
        connect(database_url, "gateway", lock_timeout_s=3) as gateway,
        connect(database_url, "dagster", lock_timeout_s=10) as dagster,
        ThreadPoolExecutor(1) as thread,
    ):
        reader.execute("SELECT count(*) FROM queue.batches")
        refused = thread.submit(drop_old_hours, dagster, timedelta(hours=72))
        accepted = 0
        while not refused.done() or not accepted:
            accept_ids(gateway, tenant.tenant_id, [uuid.uuid4()])
            accepted += 1
        assert [why for why in refused.result().values() if "lock timeout" in why]


def test_a_round_drops_one_hour(conn: Conn, settings: Settings) -> None:
    """What a wrong clock or setting makes due at once does not go at once."""
    _past_hours(conn, 3)
    chores = Keeper(settings)
    for _ in range(3):
        chores.tick(conn)
    assert _dropped(conn) == 1
    Keeper(settings).tick(conn)
    assert _dropped(conn) == 2


def test_a_fold_ends_in_time_however_many_deltas_there_are(conn: Conn, database_url: str, settings: Settings) -> None:
    conn.execute(
        "INSERT INTO account.deltas (tenant_id, hour, lane, received, accepted, in_flight)"
        " SELECT n % 400, date_trunc('hour', now(), 'UTC'), 'live', 1, 1, 1 FROM generate_series(1, 200000) AS n"
    )
    conn.execute("INSERT INTO account.latency_deltas SELECT 'live', 1, 1, 1 FROM generate_series(1, 30000)")
    with connect(database_url, "keeper", statement_timeout_s=0.25, lock_timeout_s=LOCK_TIMEOUT_S) as keeper:
        with pytest.raises(psycopg.errors.QueryCanceled):
            fold(keeper, 1_000_000)
        chores = Keeper(settings)

        def folded() -> bool:
            chores.tick(keeper)
            left = "SELECT (SELECT count(*) FROM account.deltas) + (SELECT count(*) FROM account.latency_deltas)"
            return conn.execute(left).fetchone() == (0,)

        wait_for("all deltas to be folded", folded, 60)
    assert conn.execute("SELECT sum(received), count(*) FROM account.counters").fetchone() == (200_000, 400)
    assert conn.execute("SELECT sum(received) FROM account.totals").fetchone() == (200_000,)
    assert conn.execute("SELECT sum(events) FROM account.latencies").fetchone() == (30_000,)


def test_a_chore_that_fails_stops_no_other(conn: Conn, database_url: str, settings: Settings) -> None:
    _past_hours(conn, 2)
    conn.execute("UPDATE queue.hours SET sealed_at = NULL")
    chores = Keeper(settings)
    done = "SELECT name FROM queue.chores WHERE done_at IS NOT NULL AND last_error IS NULL ORDER BY name"
    with (
        psycopg.connect(database_url) as other,
        connect(database_url, "keeper", lock_timeout_s=LOCK_TIMEOUT_S) as keeper,
    ):
        other.execute("SELECT pg_advisory_xact_lock(hashtext('account.fold'))")
        for _ in range(2):
            chores.tick(keeper)
        failing = conn.execute("SELECT name, last_error FROM queue.chores WHERE failing_since IS NOT NULL").fetchall()
        assert failing == [("fold", "canceling statement due to lock timeout")]
        assert conn.execute("SELECT count(*) FROM queue.hours WHERE sealed_at IS NOT NULL").fetchone() == (2,)
        others = {
            "drop_hours",
            "note_clock",
            "open_partitions",
            "prune_replays",
            "roll_up",
            "rotate_keys",
            "seal_hours",
        }
        assert others <= {name for (name,) in conn.execute(done)}
        other.rollback()
        chores.tick(keeper)
    assert "fold" in [name for (name,) in conn.execute(done)]


def _past_hours(conn: Conn, hours: int) -> None:
    """Hours whose retention is over."""
    conn.execute(
        f"SELECT queue.open_hour({_LONG_AGO} + n * interval '1 hour') FROM generate_series(1, %s) AS n", (hours,)
    )
    conn.execute("UPDATE queue.hours SET sealed_at = hour + interval '1 hour' WHERE hour < now() - interval '4 days'")


def _dropped(conn: Conn) -> int:
    row = conn.execute("SELECT count(*) FROM queue.hours WHERE dropped_at IS NOT NULL").fetchone()
    assert row
    return row[0]


def test_replays_are_pruned_in_portions(conn: Conn) -> None:
    (replay,) = conn.execute(
        "INSERT INTO replay.replays (window_start, window_end, planned_events, actor, reason, state, created_at)"
        " VALUES (now() - interval '1 hour', now(), 5, 'a', 'a test', 'committed', now() - interval '9 days')"
        " RETURNING replay_id"
    ).fetchone() or (0,)
    conn.execute(
        "INSERT INTO replay.before_images"
        " (replay_id, chunk, tenant_id, event_id, received_at, action, is_shadow, had_key)"
        " SELECT %s, 1, 1, gen_random_uuid(), now(), 'added', false, false FROM generate_series(1, 5)",
        (replay,),
    )
    deleted = [conn.execute("SELECT replay.prune('72 hours', 2)").fetchone() for _ in range(4)]
    assert deleted == [(2,), (2,), (1,), (0,)]
    assert conn.execute("SELECT pruned_at IS NOT NULL FROM replay.replays").fetchone() == (True,)
