"""Writes CSV and Parquet with Arrow, in record batches.

In CSV a missing value is an empty field and an empty string is `""`, as PostgreSQL reads them back. Values that a
spreadsheet would take for a formula are not changed.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from pipeline_platform.analytics.formats import COLUMNS, TIMES, Row

pa: Any = pyarrow
csv: Any = pyarrow.csv
pq: Any = pyarrow.parquet

EVENT_SCHEMA = pa.schema([(name, pa.timestamp("us", tz="UTC") if name in TIMES else pa.string()) for name in COLUMNS])
_TIMES = [place for place, name in enumerate(COLUMNS) if name in TIMES]


class Csv:
    """A header, then one row for each event; strings in quotes, times in ISO 8601."""

    def __init__(self, out: BinaryIO) -> None:
        self._schema = pa.schema([(name, pa.string()) for name in COLUMNS])
        self._writer = csv.CSVWriter(out, self._schema)

    def write(self, rows: Sequence[Row]) -> None:
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for place in _TIMES:
            columns[place] = [_iso(at) for at in columns[place]]
        self._writer.write_batch(batch(self._schema, columns))

    def close(self) -> None:
        self._writer.close()


class Parquet:
    """Times as microseconds in UTC, JSON as text, compressed with zstd. Each portion of rows is one row group."""

    def __init__(self, out: BinaryIO) -> None:
        self._writer = pq.ParquetWriter(out, EVENT_SCHEMA, compression="zstd")

    def write(self, rows: Sequence[Row]) -> None:
        self._writer.write_batch(batch(EVENT_SCHEMA, list(zip(*rows, strict=True))))

    def close(self) -> None:
        self._writer.close()


def batch(schema: Any, columns: Sequence[Sequence[Any]]) -> Any:
    """A record batch of the columns of a schema."""
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
