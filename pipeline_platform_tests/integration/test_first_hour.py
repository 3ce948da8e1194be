"""The hour with which Dagster's partitions begin."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from pipeline_platform.local.services.first_hour import note_first_hour, read_first_hour

RETENTION = timedelta(hours=72)


def test_partitions_begin_with_the_retention_before_the_first_start_or_with_an_earlier_hour(
    conn: psycopg.Connection[Any], home: Path
) -> None:
    assert read_first_hour(home) is None
    first = note_first_hour(conn, home, RETENTION)
    age = datetime.now(UTC) - first
    assert RETENTION <= age < RETENTION + timedelta(days=1) and first.hour == 0
    assert read_first_hour(home) == first

    # It never moves on, and an import into an earlier hour moves it back.
    assert note_first_hour(conn, home, timedelta(0)) == first
    conn.execute("INSERT INTO queue.hours (hour) VALUES (%s)", (first - timedelta(days=30, hours=5),))
    assert note_first_hour(conn, home, RETENTION) == first - timedelta(days=31)
    assert read_first_hour(home) == first - timedelta(days=31)
