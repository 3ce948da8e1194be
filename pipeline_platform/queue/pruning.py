"""Deletes old rejected events and discarded dead letters, some at a time. The keeper calls it.

Their counts stay exact: queue.pruned has their number by cause.
"""

from typing import Any

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.settings import Settings

_SQL = queries("pruning")
# Rows of each call: a second of work, and no long lock.
ROWS_AT_ONCE = 10_000


def prune(conn: psycopg.Connection[Any], settings: Settings) -> int:
    """Prune one portion of each. Returns how many rows were deleted or emptied. conn: in autocommit mode."""
    params = {"days": settings.quarantine_d, "rows_max": ROWS_AT_ONCE}
    done = (conn.execute(_SQL[name], params).fetchone() or (0,) for name in ("rejected", "discarded"))
    return sum(rows for (rows,) in done)
