"""PostgreSQL arrays in their binary form, encoded and decoded.

psycopg's own dumpers make one Python call for each value of a list; these make one for the whole list. Format:
array_send in PostgreSQL's src/backend/utils/adt/arrayfuncs.c: dimensions, null flag, element type, length, lower bound,
then a length and the bytes of each element (-1: NULL).
"""

import struct
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

_HEADER = struct.Struct("!iiiii")
_LENGTH = struct.Struct("!i")
_NULL = _LENGTH.pack(-1)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class BinaryArray(bytes):
    """An encoded array; psycopg sends it unchanged."""

    array_oid: ClassVar[int]
    element_oid: ClassVar[int]

    @classmethod
    def of(cls, body: bytes, length: int, *, nulls: bool = False) -> "BinaryArray":
        if not length:
            return cls(struct.pack("!iii", 0, 0, cls.element_oid))
        return cls(_HEADER.pack(1, int(nulls), cls.element_oid, length, 1) + body)


class Int4Array(BinaryArray):
    array_oid, element_oid = 1007, 23


class Int8Array(BinaryArray):
    array_oid, element_oid = 1016, 20


class UuidArray(BinaryArray):
    array_oid, element_oid = 2951, 2950


class TimestampArray(BinaryArray):
    array_oid, element_oid = 1185, 1184


class CharArray(BinaryArray):
    array_oid, element_oid = 1002, 18


class TextArray(BinaryArray):
    array_oid, element_oid = 1009, 25


class ByteaArray(BinaryArray):
    array_oid, element_oid = 1001, 17


class JsonbArray(BinaryArray):
    array_oid, element_oid = 3807, 3802


class BoolArray(BinaryArray):
    array_oid, element_oid = 1000, 16


class _Dumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: BinaryArray) -> Buffer:
        return obj


for _kind in (
    Int4Array,
    Int8Array,
    UuidArray,
    TimestampArray,
    CharArray,
    TextArray,
    ByteaArray,
    JsonbArray,
    BoolArray,
):
    psycopg.adapters.register_dumper(_kind, type(f"{_kind.__name__}Dumper", (_Dumper,), {"oid": _kind.array_oid}))


def int4s(values: Sequence[int]) -> BinaryArray:
    flat = [4] * (2 * len(values))
    flat[1::2] = values
    return Int4Array.of(struct.pack(f"!{len(flat)}i", *flat), len(values))


def int8s(values: Sequence[int]) -> BinaryArray:
    flat = [8] * (2 * len(values))
    flat[1::2] = values
    return Int8Array.of(struct.pack(f"!{'iq' * len(values)}", *flat), len(values))


def uuids(values: Sequence[uuid.UUID]) -> BinaryArray:
    return UuidArray.of(b"".join([b"\0\0\0\x10" + value.bytes for value in values]), len(values))


def timestamps(values: Sequence[datetime | None]) -> BinaryArray:
    # Most columns of times repeat a few values, since a batch's events share its received_at.
    encoded: dict[datetime | None, bytes] = {None: _NULL}
    for value in set(values):
        if value is not None:
            encoded[value] = struct.pack("!iq", 8, (value - _EPOCH) // _MICROSECOND)
    return TimestampArray.of(b"".join([encoded[value] for value in values]), len(values), nulls=None in values)


def chars(letters: str) -> BinaryArray:
    return CharArray.of(b"".join([b"\0\0\0\x01" + letter.encode() for letter in letters]), len(letters))


def bools(values: Sequence[bool]) -> BinaryArray:
    return BoolArray.of(b"".join([b"\0\0\0\x01\x01" if value else b"\0\0\0\x01\x00" for value in values]), len(values))


def _variable(kind: type[BinaryArray], values: Sequence[bytes | None]) -> BinaryArray:
    pack = _LENGTH.pack
    parts: list[bytes] = []
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            parts += (pack(len(value)), value)
    return kind.of(b"".join(parts), len(values), nulls=None in values)


def texts(values: Sequence[str | None]) -> BinaryArray:
    return _variable(TextArray, [None if value is None else value.encode() for value in values])


def byteas(values: Sequence[bytes | None]) -> BinaryArray:
    return _variable(ByteaArray, values)


def jsonbs(values: Sequence[bytes | None]) -> BinaryArray:
    """JSON texts, as jsonb (format version 1)."""
    return _variable(JsonbArray, [None if value is None else b"\x01" + value for value in values])


def read_int4s(encoded: bytes) -> list[int]:
    return list(struct.unpack_from(f"!{(len(encoded) - 20) // 4}i", encoded, 20)[1::2]) if len(encoded) > 20 else []


def read_uuids(encoded: bytes) -> list[uuid.UUID]:
    return [uuid.UUID(bytes=encoded[at : at + 16]) for at in range(24, len(encoded), 20)]


def read_chars(encoded: bytes) -> str:
    return encoded[24::5].decode()


def read_timestamps(encoded: bytes) -> list[datetime | None]:
    values: list[datetime | None] = []
    at = 20
    while at < len(encoded):
        if encoded[at : at + 4] == _NULL:
            values.append(None)
            at += 4
        else:
            (micros,) = struct.unpack_from("!q", encoded, at + 4)
            values.append(_EPOCH + timedelta(microseconds=micros))
            at += 12
    return values
