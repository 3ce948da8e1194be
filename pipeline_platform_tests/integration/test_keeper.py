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
