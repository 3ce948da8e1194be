"""The hour with which Dagster's partitions begin: ``home/first_hour``, written when the platform starts.

It is the first hour that holds events, or the beginning of the retention before the first start, since such hours can
be imported at any time. Without the file (no platform was started here), partitions begin long ago.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from pipeline_platform.db import queries

_SQL = queries("control_plane")
_NAME = "first_hour"


def note_first_hour(conn: psycopg.Connection[Any], home: Path, retention: timedelta) -> datetime:
    """Write the file, and return the hour. It only ever moves back: partitions that exist keep their history."""
    (known, now) = conn.execute(_SQL["first_hour"]).fetchone() or (None, datetime.now(UTC))
    noted = read_first_hour(home)
    if noted and (known is None or noted <= known):
        return noted
    first = min(known or now, now - retention).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    unfinished = home / f"{_NAME}.new"
    unfinished.write_text(first.isoformat())
    unfinished.replace(home / _NAME)
    return first


def read_first_hour(home: Path) -> datetime | None:
    """The hour in the file, in UTC; None if there is no file."""
    try:
        return datetime.fromisoformat((home / _NAME).read_text())
    except FileNotFoundError:
        return None
