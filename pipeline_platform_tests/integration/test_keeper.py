"""The queue's chores beside people who read for long: nobody who comes later waits behind a chore."""

from datetime import timedelta
from typing import Any

import psycopg

from pipeline_platform.db import connect
from pipeline_platform.queue.keeper import LOCK_TIMEOUT_S, Keeper, drop_old_hours
from pipeline_platform.settings import Settings

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
        Keeper(settings).tick(keeper)
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
    conn.execute("INSERT INTO control.tenants (name) VALUES ('acme')")
    states = ("waiting", "exhausted", "delivered", "duplicate", "discarded")
    for number, (hour, state) in enumerate((hour, state) for hour in (_LONG_AGO, kept) for state in states):
        conn.execute(
            f"""INSERT INTO queue.dead_letters (tenant_id, event_id, type, lane, batch_id, event_index,
                    batch_received_at, received_at, payload, stage, error_class, error, fingerprint, state, attempts,
                    next_attempt_at, resolved_at, reason)
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
