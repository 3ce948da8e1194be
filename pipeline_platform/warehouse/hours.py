"""Exports hours: which are due, and a new version of one whose rows may have changed.

A version is written, read back and compared in this order: its number is taken, its file is written from one snapshot,
the file is read back, its manifest is written, `current.json` of the hour names it, and control.exports records it. If
the process is killed at any point, readers see the version before or the new one, each complete; the next export takes
another number.
"""

from datetime import datetime
from typing import Any

import psycopg

from pipeline_platform.analytics.rollups import refresh_all
from pipeline_platform.archive.hold import exclusively
from pipeline_platform.db import queries
from pipeline_platform.errors import ConfigError, NotNowError
from pipeline_platform.settings import Settings
from pipeline_platform.warehouse.content import require_delivered, row_of
from pipeline_platform.warehouse.versions import Exported, verified, write_version

_SQL = queries("warehouse")
# Rows of a past hour change seldom.
_TRIES = 5

Conn = psycopg.Connection[Any]


def due_hours(conn: Conn, settings: Settings, first: datetime | None = None, *, new: bool = True) -> list[datetime]:
    """Sealed and delivered hours that were not exported, or changed since. new: False leaves out the former."""
    params = {"first": first or "-infinity", "days": settings.warehouse_days, "new": new}
    return [hour for (hour,) in conn.execute(_SQL["due"], params).fetchall()]


def export_hour(conn: Conn, settings: Settings, hour: datetime) -> Exported:
    """Export an hour as a new version if its rows may have changed; else verify the current one.

    A damaged version is replaced. conn: in autocommit mode, without a statement time-out. ConfigError if exports are
    off; NotNowError if the hour is not sealed or not delivered; NumbersDifferError if the file, production and the
    account differ; PipelineError if the address cannot be used.
    """
    require_address(settings)
    with exclusively(conn):
        for _ in range(_TRIES):
            refresh_all(conn)
            state = row_of(conn, "hour", hour)
            if state is None:
                return Exported(hour)
            require_delivered(state, hour)
            if state["is_unrolled"]:
                continue
            current = row_of(conn, "current", hour)
            if current and current["refreshes"] == state["refreshes"] and (kept := verified(current)):
                return kept
            if written := write_version(conn, settings, hour, current):
                return written
    raise NotNowError(f"the rows of {hour:%Y-%m-%d %H}:00 are being changed: export the hour again")


def require_address(settings: Settings) -> None:
    """ConfigError if exports are off."""
    if not settings.warehouse_url:
        raise ConfigError("exports are off: set PIPELINE_WAREHOUSE_URL to a directory or an address (s3://…)")
