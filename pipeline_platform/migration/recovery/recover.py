"""Moves dropped events from shadow.events into production: in chunks, each one transaction, each row once.

A killed recovery has moved some chunks; the next one over the window finds the rest. It never changes a row that
production has. It refuses while the old pipeline may still deliver: a late event would be stored twice, though the
view analytics.production would still show it once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg

from pipeline_platform.audit_log import actor, note
from pipeline_platform.db import queries
from pipeline_platform.kill_points import reach
from pipeline_platform.migration.reconcile import settled
from pipeline_platform.migration.recovery.dropped import Dropped, Window, find_dropped

_SQL = queries("recovery")
_CHUNK_EVENTS = 5_000
# Find the rows by key. With another join, each chunk would read a whole day.
_BY_INDEX = "SELECT set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)"


@dataclass(frozen=True, slots=True)
class Recovered:
    """The result of a recovery. recovery_id is None for a dry run, or if there was nothing to do."""

    dropped: Dropped
    recovery_id: int | None
    recovered: int
    tenants: dict[str, int]
    missing_after: int


def recover(
    conn: psycopg.Connection[Any],
    window: Window,
    *,
    reason: str,
    dry_run: bool = False,
    on_events: Callable[[int, int], None] | None = None,
) -> Recovered:
    """Put into production what it lacks of a window. NotNowError if the window may still change.

    conn: in autocommit mode, outside a transaction. on_events: called with the number of events done and the total.
    """
    settled(conn, window.start, window.end).require()
    dropped = find_dropped(conn, window)
    if dry_run or not dropped.events:
        return Recovered(dropped, None, 0, {} if not dry_run else dropped.tenants, dropped.events)
    params = {**window.params(), "actor": actor(), "reason": reason}
    row = conn.execute(_SQL["begin"], params).fetchone()
    assert row
    recovery_id: int = row[0]
    recovered = _move(conn, window, recovery_id, on_events)
    tenants = dict(conn.execute(_SQL["moved"], {"recovery_id": recovery_id}).fetchall())
    detail = {"recovery_id": recovery_id, "events": recovered, "from": window.start.isoformat(),
              "to": window.end.isoformat()}  # fmt: skip
    with conn.transaction():
        conn.execute(_SQL["finish"], {"recovery_id": recovery_id})
        note(conn, "recovery", reason, detail)
    return Recovered(dropped, recovery_id, recovered, tenants, find_dropped(conn, window).events)


def _move(
    conn: psycopg.Connection[Any], window: Window, recovery_id: int, on_events: Callable[[int, int], None] | None
) -> int:
    conn.execute("DROP TABLE IF EXISTS pg_temp.to_recover")
    # The statement that creates the table takes no parameters, so the client binds them.
    with psycopg.ClientCursor(conn) as cursor:
        cursor.execute(_SQL["list_dropped"], {**window.params(), "chunk": _CHUNK_EVENTS})
    conn.execute("CREATE INDEX ON to_recover (chunk)")
    conn.execute("ANALYZE to_recover")
    chunks = conn.execute(_SQL["chunks"]).fetchall()
    total, done, moved = sum(events for _, events in chunks), 0, 0
    for chunk, events in chunks:
        with conn.transaction():
            conn.execute(_SQL["enter"])
            conn.execute(_BY_INDEX)
            row = conn.execute(_SQL["move"], {**window.params(), "chunk": chunk, "recovery_id": recovery_id}).fetchone()
            reach("recovery.before_commit")
        reach("recovery.after_commit")
        moved += row[0] if row else 0
        done += events
        if on_events:
            on_events(done, total)
    conn.execute("DROP TABLE to_recover")
    return moved
