"""Maintains analytics.rollups: changed rows of analytics.events leave a mark, and marked hours are counted again.

The transaction that changes the rows writes the mark (loads put theirs into the account's delta). So a mark is removed
only together with a count of its rows. A refresh that fails leaves its marks. The view analytics.unrolled shows what
waits. To count hours again, marked or not, an operator materializes `rollups` in Dagster.
"""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg

from pipeline_platform.db import queries

_SQL = queries("rollups")
# Tenants' hours in one transaction: a few milliseconds, unless one of them is large.
PORTION = 32
# Deltas that one transaction folds.
_DELTAS = 50_000
_PAUSE_S = 0.05

Conn = psycopg.Connection[Any]


def refresh(conn: Conn, portion: int = PORTION) -> int | None:
    """Count up to `portion` marked tenants' hours again, in one transaction; None if another session is refreshing.

    conn: in autocommit mode, outside a transaction. The statement has no time limit, because a large hour may take
    long.
    """
    with conn.transaction():
        conn.execute(_SQL["no_time_limit"])
        row = conn.execute(_SQL["refresh"], (portion,)).fetchone()
    return row[0] if row else None


def refresh_all(conn: Conn, portion: int = PORTION) -> int:
    """Count all hours again that were marked at the time of the call; returns the number of tenants' hours it counted.

    Marks that are added meanwhile are left: under load there are always some.
    """
    while conn.execute(_SQL["fold"], (_DELTAS,)).fetchone() == (_DELTAS,):
        pass
    newest = conn.execute(_SQL["newest_mark"]).fetchone()
    done = 0
    while conn.execute(_SQL["is_marked"], newest).fetchone() == (True,):
        here = refresh(conn, portion)
        done += here or 0
        if here is None:
            time.sleep(_PAUSE_S)
    return done


def mark(conn: Conn, hours: Sequence[datetime]) -> None:
    """Mark all cells of these hours of received_at, so that the next refresh counts them again."""
    conn.execute(_SQL["mark"], {"hours": list(hours)})
