"""Roll-ups against the rows that they are made of."""

from typing import Any

import psycopg

from pipeline_platform.analytics import rollups

Conn = psycopg.Connection[Any]

# Every cell that differs from the rows, in either direction.
_WRONG = """
WITH counted AS (
    SELECT tenant_id, date_trunc('hour', occurred_at, 'UTC') AS hour,
           date_trunc('hour', received_at, 'UTC') AS received_hour, type, name, count(*) AS events
    FROM analytics.events GROUP BY 1, 2, 3, 4, 5)
(TABLE counted EXCEPT SELECT tenant_id, hour, received_hour, type, name, events FROM analytics.rollups)
UNION ALL
(SELECT tenant_id, hour, received_hour, type, name, events FROM analytics.rollups EXCEPT TABLE counted)
"""


def wrong(conn: Conn) -> list[Any]:
    """Cells of roll-ups or rows that the other side does not have; empty: they agree."""
    return conn.execute(_WRONG).fetchall()


def refreshed(conn: Conn) -> list[Any]:
    """What is still wrong after a refresh."""
    rollups.refresh_all(conn)
    return wrong(conn)


def first_value(conn: Conn, query: str, *params: Any) -> Any:
    """The first column of the first row; None: there is none."""
    row = conn.execute(query, params).fetchone()  # pyright: ignore[reportArgumentType]
    return row[0] if row else None
