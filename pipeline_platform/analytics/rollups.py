"""Keeps analytics.rollups right: changed rows of analytics.events leave a mark, and what is marked is counted anew.

A mark is written by the transaction that changes the rows (loads leave theirs in the account's delta), so a mark that
was taken away stands for rows that were counted. A refresh that dies leaves its marks. An operator sees what waits in
the view analytics.unrolled, and counts hours anew, marked or not, by materializing `rollups` in Dagster.
"""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg

from pipeline_platform.db import queries

_SQL = queries("rollups")
# Tenants' hours a transaction: a few milliseconds, unless one of them is large.
PORTION = 32
# Deltas that a transaction folds.
_DELTAS = 50_000
_PAUSE_S = 0.05

Conn = psycopg.Connection[Any]


def refresh(conn: Conn, portion: int = PORTION) -> int | None:
    """Count anew up to `portion` marked tenants' hours, in one transaction; None: somebody else is at it.

    conn: in autocommit mode, outside a transaction. A large hour may take longer than a statement otherwise may.
    """
    with conn.transaction():
        conn.execute(_SQL["no_time_limit"])
        row = conn.execute(_SQL["refresh"], (portion,)).fetchone()
    return row[0] if row else None


def refresh_all(conn: Conn, portion: int = PORTION) -> int:
    """Count anew all that was marked when it was called, by portions; returns how many tenants' hours it did itself.

    What is marked meanwhile is not waited for: under load there is always something.
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
    """Have all cells of these hours of received_at counted anew by the next refresh."""
    conn.execute(_SQL["mark"], {"hours": list(hours)})
