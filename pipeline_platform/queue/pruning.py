"""Deletes rejected events and discarded dead letters that are old, some at a time; the keeper calls it.

What they counted for stays exact: how many there were, by cause, is in queue.pruned.
"""

from typing import Any

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.settings import Settings

_SQL = queries("pruning")
# In each call: a second of work, and no long lock.
ROWS_AT_ONCE = 10_000


def prune(conn: psycopg.Connection[Any], settings: Settings) -> int:
    """One portion of each; returns how many rows were deleted or emptied. conn: in autocommit mode."""
    params = {"days": settings.quarantine_d, "rows_max": ROWS_AT_ONCE}
    done = (conn.execute(_SQL[name], params).fetchone() or (0,) for name in ("rejected", "discarded"))
    return sum(rows for (rows,) in done)
