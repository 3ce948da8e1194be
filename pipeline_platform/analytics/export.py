"""Streams a tenant's events of a window from one snapshot, with a server-side cursor and constant memory.

The window is of occurred_at, for dashboards, or of received_at, for a copy that is continued: a late event is then in a
later window. Rows come in the order in which they were received. The export reads the rows themselves; the roll-ups
only say which hours of received_at to read. An export that fails leaves no file.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import psycopg
from psycopg import sql

from pipeline_platform.analytics.formats import Row, Writer
from pipeline_platform.db import composed, queries
from pipeline_platform.errors import ConfigError

_SQL = queries("export")
_COUNT = composed(_SQL["count"], rows=sql.SQL(_SQL["rows"]))
# Some megabytes of ordinary events.
_ROWS_AT_ONCE = 2_000
_HOUR = timedelta(hours=1)

Conn = psycopg.Connection[Any]


class By(StrEnum):
    """Which time of an event decides whether it is in the window."""

    OCCURRED = "occurred"
    RECEIVED = "received"


@dataclass(frozen=True, slots=True)
class Window:
    """From start (inclusive) to end (exclusive), of one tenant. ConfigError if end is not after start."""

    tenant_id: int
    start: datetime
    end: datetime
    by: By = By.OCCURRED

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise ConfigError(
                f"the window ends at {self.end.isoformat()}, which is not after its begin {self.start.isoformat()}"
            )


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A range of received_at: one scan of the primary key."""

    start: datetime
    end: datetime


def export(conn: Conn, window: Window, writer: Writer, progress: Callable[[int, int], None]) -> int:
    """Write the window's events; returns their number.

    conn: in autocommit mode, outside a transaction, without a statement time-out. progress: called with the number of
    written events and the approximate total.
    """
    written = 0
    with _one_snapshot(conn):
        stretches, expected = _places(conn, window)
        for stretch in stretches:
            for rows in _read(conn, window, stretch, _ROWS_AT_ONCE):
                writer.write(rows)
                written += len(rows)
                progress(written, max(expected, written))
    return written


def rows_of_hour(conn: Conn, tenant_id: int, hour: datetime, rows_at_once: int) -> Iterator[list[Row]]:
    """A tenant's rows of an hour of received_at, in portions.

    Runs in the caller's transaction, through the export's own statement.
    """
    yield from _read(
        conn, Window(tenant_id, hour, hour + _HOUR, By.RECEIVED), _Stretch(hour, hour + _HOUR), rows_at_once
    )


def count_hour(conn: Conn, tenant_id: int, hour: datetime) -> dict[tuple[datetime, str, str | None], int]:
    """The number of events in an export of this hour of received_at, by hour of occurred_at, type and name.

    Runs in the caller's transaction, through the export's own statement.
    """
    window = Window(tenant_id, hour, hour + _HOUR, By.RECEIVED)
    params = _params(window, _Stretch(hour, hour + _HOUR))
    found = conn.execute(_COUNT, params)
    return {(at, kind, name): events for at, kind, name, events in found}


@contextmanager
def _one_snapshot(conn: Conn) -> Generator[None]:
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def _places(conn: Conn, window: Window) -> tuple[list[_Stretch], int]:
    """Ranges of received_at that hold the window's rows, and the approximate number of rows."""
    params = {"tenant_id": window.tenant_id, "start": window.start, "end": window.end}
    if window.by is By.RECEIVED:
        row = conn.execute(_SQL["expected"], params).fetchone()
        return [_Stretch(window.start, window.end)], row[0] if row else 0
    found = conn.execute(_SQL["received_hours"], params).fetchall()
    return _stretches([hour for hour, _ in found]), sum(events for _, events in found)


def _stretches(hours: Sequence[datetime]) -> list[_Stretch]:
    """Merge adjacent hours, given in ascending order, into ranges."""
    found: list[_Stretch] = []
    for hour in hours:
        if found and found[-1].end == hour:
            found[-1] = _Stretch(found[-1].start, hour + _HOUR)
        else:
            found.append(_Stretch(hour, hour + _HOUR))
    return found


def _params(window: Window, stretch: _Stretch) -> dict[str, Any]:
    by_occurred = window.by is By.OCCURRED
    return {
        "tenant_id": window.tenant_id,
        "received_from": stretch.start,
        "received_to": stretch.end,
        "occurred_from": window.start if by_occurred else None,
        "occurred_to": window.end if by_occurred else None,
    }


def _read(conn: Conn, window: Window, stretch: _Stretch, rows_at_once: int) -> Iterator[list[Row]]:
    with conn.cursor(name="export") as cursor:
        cursor.execute(_SQL["rows"], _params(window, stretch))
        while rows := cursor.fetchmany(rows_at_once):
            yield rows
