"""Exported events as NDJSON, CSV or Parquet: every value as it is, whatever is in it.

JSON columns are never parsed: their text is PostgreSQL's. In CSV a missing value is an empty field and an empty one
`""`, as PostgreSQL reads them; a value that a spreadsheet would take for a formula is left as it is.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, BinaryIO, Protocol

import msgspec

Row = tuple[Any, ...]

_TEXTS = ("event_id", "message_id", "type", "name", "user_id", "anonymous_id", "group_id", "previous_id")
_TIMES = ("occurred_at", "received_at", "delivered_at")
_JSONS = ("properties", "traits", "context", "user_traits", "group_traits")
COLUMNS = (*_TEXTS, *_TIMES, *_JSONS)
_NULL = msgspec.Raw(b"null")


class Format(StrEnum):
    """What a file of events looks like."""

    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"


class Writer(Protocol):
    """Takes rows of `COLUMNS`, in portions; complete after close."""

    def write(self, rows: Sequence[Row]) -> None: ...

    def close(self) -> None: ...


class _Ndjson:
    """An object a line, all columns in it."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._encode = msgspec.json.Encoder().encode_lines

    def write(self, rows: Sequence[Row]) -> None:
        self._out.write(self._encode([self._object(row) for row in rows]))

    def _object(self, row: Row) -> dict[str, Any]:
        plain = len(_TEXTS) + len(_TIMES)
        values = [*row[:plain], *(_NULL if text is None else msgspec.Raw(text.encode()) for text in row[plain:])]
        return dict(zip(COLUMNS, values, strict=True))

    def close(self) -> None:
        self._out.flush()


class _Csv:
    """A header, then a line a row; strings in quotes, times in ISO 8601."""

    def __init__(self, out: BinaryIO) -> None:
        import pyarrow as pa
        from pyarrow import csv

        self._schema = pa.schema([(name, pa.string()) for name in COLUMNS])
        self._batch = pa.RecordBatch.from_arrays
        self._array = pa.array
        self._writer = csv.CSVWriter(out, self._schema)

    def write(self, rows: Sequence[Row]) -> None:
        columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
        for name in _TIMES:
            columns[name] = tuple(_iso(at) for at in columns[name])
        arrays = [self._array(columns[name], self._schema.field(name).type) for name in COLUMNS]
        self._writer.write_batch(self._batch(arrays, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class _Parquet:
    """Times as microseconds in UTC, JSON as its text; compressed with zstd."""

    def __init__(self, out: BinaryIO) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        times = pa.timestamp("us", tz="UTC")
        self._schema = pa.schema([(name, times if name in _TIMES else pa.string()) for name in COLUMNS])
        self._batch = pa.RecordBatch.from_arrays
        self._array = pa.array
        self._writer = parquet.ParquetWriter(out, self._schema, compression="zstd")

    def write(self, rows: Sequence[Row]) -> None:
        columns = zip(*rows, strict=True)
        arrays = [self._array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._writer.write_batch(self._batch(arrays, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def open_writer(kind: Format, out: BinaryIO) -> Writer:
    """A writer of the format on a binary stream, which stays open when the writer is closed."""
    writers: dict[Format, Callable[[BinaryIO], Writer]] = {
        Format.NDJSON: _Ndjson,
        Format.CSV: _Csv,
        Format.PARQUET: _Parquet,
    }
    return writers[kind](out)
