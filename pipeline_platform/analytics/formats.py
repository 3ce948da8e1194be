"""Exported events as NDJSON, CSV or Parquet, with every value unchanged.

JSON columns are not parsed: PostgreSQL's text is copied, so no number is rounded.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, BinaryIO, Protocol, assert_never

import msgspec

Row = tuple[Any, ...]

_TEXTS = ("event_id", "message_id", "type", "name", "user_id", "anonymous_id", "group_id", "previous_id")
TIMES = ("occurred_at", "received_at", "delivered_at")
_JSONS = ("properties", "traits", "context", "user_traits", "group_traits", "rest")
COLUMNS = (*_TEXTS, *TIMES, *_JSONS)
_PLAIN = len(_TEXTS) + len(TIMES)
_NULL = msgspec.Raw(b"null")


class Format(StrEnum):
    """The format of a file of events."""

    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"


class Writer(Protocol):
    """Takes rows of `COLUMNS` in portions. The output is complete after close, which leaves the stream open."""

    def write(self, rows: Sequence[Row]) -> None: ...

    def close(self) -> None: ...


class _Ndjson:
    """One object with all columns on each line; times in ISO 8601."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._encode = msgspec.json.Encoder().encode_lines

    def write(self, rows: Sequence[Row]) -> None:
        self._out.write(self._encode([_object(row) for row in rows]))

    def close(self) -> None:
        self._out.flush()


def _object(row: Row) -> dict[str, Any]:
    jsons = (_NULL if text is None else msgspec.Raw(text.encode()) for text in row[_PLAIN:])
    return dict(zip(COLUMNS, (*row[:_PLAIN], *jsons), strict=True))


def open_writer(kind: Format, out: BinaryIO) -> Writer:
    """A writer of the format on a binary stream."""
    if kind is Format.NDJSON:
        return _Ndjson(out)
    # Imported only when needed: pyarrow takes a moment to import.
    from pipeline_platform.analytics import arrow

    if kind is Format.CSV:
        return arrow.Csv(out)
    if kind is Format.PARQUET:
        return arrow.Parquet(out)
    assert_never(kind)
