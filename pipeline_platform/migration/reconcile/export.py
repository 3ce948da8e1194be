"""Writes a stored window as files for spreadsheets and notebooks: CSV and Parquet, in the same directory.

It reads what `reconcile` stored, so it is as current as the last comparison. It contains no values of events, only
identities, field names, types and lengths.
"""

from datetime import datetime
from typing import Any

import pandas as pd
import psycopg

from pipeline_platform import stores
from pipeline_platform.db import queries

_SQL = queries("reconcile")


def export(conn: psycopg.Connection[Any], start: datetime, end: datetime, directory: str) -> list[str]:
    """Write results and differences of the window into `directory` (an address); returns the files written.

    Columns are those of reconcile.results and reconcile.differences, with the tenant's name; fields and samples are
    JSON as text. A window that was never compared gives files without rows.
    """
    span = f"{start:%Y%m%dT%H%M%S}-{end:%Y%m%dT%H%M%S}"
    written: list[str] = []
    for name in ("results", "differences"):
        frame = _frame(conn, f"export_{name}", start, end)
        as_csv, as_parquet = (f"{directory}/{name}-{span}.{suffix}" for suffix in ("csv", "parquet"))
        stores.write_whole(as_csv, frame.to_csv(index=False).encode())  # pyright: ignore[reportUnknownMemberType]
        stores.write_whole(as_parquet, frame.to_parquet(index=False))  # pyright: ignore[reportUnknownMemberType]
        written += [as_csv, as_parquet]
    return written


def _frame(conn: psycopg.Connection[Any], query: str, start: datetime, end: datetime) -> pd.DataFrame:
    cursor = conn.execute(_SQL[query], {"start": start, "end": end})
    columns = [column.name for column in cursor.description or ()]
    return pd.DataFrame(cursor.fetchall(), columns=pd.Index(columns))
