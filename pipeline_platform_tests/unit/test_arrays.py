"""Binary arrays: PostgreSQL reads back what was written, and `read_*` what PostgreSQL writes."""

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline_platform import arrays

Conn = psycopg.Connection[Any]

_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
_TIME = st.datetimes(timezones=st.just(UTC))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=8,
)
_TYPES = ["int4", "int8", "uuid", "timestamptz", "char", "text", "bytea", "jsonb", "bool"]


def _through_postgres(admin: Conn, array: arrays.BinaryArray, kind: str) -> tuple[list[Any], bytes]:
    """The values as psycopg reads them from PostgreSQL, and the array as PostgreSQL writes it."""
    quoted = '"char"' if kind == "char" else kind
    query = f"SELECT given, array_send(given) FROM (SELECT %b::{quoted}[] AS given) AS one"
    row = admin.execute(query, (array,)).fetchone()  # pyright: ignore
    assert row
    return row


def _case(kind: str) -> tuple[Callable[..., arrays.BinaryArray], st.SearchStrategy[Any]]:
    return {
        "int4": (arrays.int4s, st.integers(-(2**31), 2**31 - 1)),
        "int8": (arrays.int8s, st.integers(-(2**63), 2**63 - 1)),
        "uuid": (arrays.uuids, st.uuids()),
        "timestamptz": (arrays.timestamps, st.none() | _TIME),
        "char": (lambda letters: arrays.chars("".join(letters)), st.sampled_from("tipsga")),
        "text": (arrays.texts, st.none() | _TEXT),
        "bytea": (arrays.byteas, st.none() | st.binary(max_size=40)),
        "jsonb": (_jsonbs, st.none() | _JSON.map(lambda value: [value])),
        "bool": (arrays.bools, st.booleans()),
    }[kind]


def _jsonbs(values: list[Any]) -> arrays.BinaryArray:
    return arrays.jsonbs([None if value is None else json.dumps(value).encode() for value in values])


@pytest.mark.parametrize("kind", _TYPES)
def test_postgres_reads_what_was_written(admin: Conn, kind: str) -> None:
    encode, element = _case(kind)

    @settings(max_examples=60, database=None)
    @given(st.lists(element, max_size=8))
    @example([])
    def round_trip(values: list[Any]) -> None:
        read, sent = _through_postgres(admin, encode(values), kind)
        assert read == values
        if kind != "jsonb":
            assert sent == encode(values)

    round_trip()


@settings(max_examples=100, database=None)
@given(
    st.lists(st.integers(-(2**31), 2**31 - 1)),
    st.lists(st.uuids()),
    st.lists(st.none() | _TIME),
    st.text("tipsga"),
)
def test_reads_back_what_it_wrote(
    numbers: list[int], ids: list[uuid.UUID], times: list[datetime | None], letters: str
) -> None:
    assert arrays.read_int4s(arrays.int4s(numbers)) == numbers
    assert arrays.read_uuids(arrays.uuids(ids)) == ids
    assert arrays.read_timestamps(arrays.timestamps(times)) == times
    assert arrays.read_chars(arrays.chars(letters)) == letters


@pytest.mark.parametrize("array", [arrays.int4s([1]), arrays.texts(["a"]), arrays.uuids([uuid.UUID(int=1)])])
def test_keeps_its_type_when_sent_without_a_cast(admin: Conn, array: arrays.BinaryArray) -> None:
    row = admin.execute("SELECT pg_typeof(%s)::oid", (array,)).fetchone()
    assert row == (type(array).array_oid,)
