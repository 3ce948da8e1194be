"""Whatever is accepted, PostgreSQL's jsonb holds: the gateway judges no more leniently than the database."""

import json
import uuid

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from pipeline_platform.errors import InvalidEventError
from pipeline_platform.event.json_limits import doubts_of
from pipeline_platform.event.reader import Limits, read_event
from pipeline_platform.event.types import EventType, TenantId
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.gateway import Conn
from pipeline_platform_tests.support.json_numbers import HELD_NUMBERS, TOO_MUCH

LIMITS = Limits.of(Settings())
_DIGITS = st.text("0123456789", min_size=1, max_size=5)
_NUMBERS = st.builds(
    lambda whole, zeros, fraction, exponent: f"{int(whole)}{'0' * zeros}{fraction}{exponent}",
    _DIGITS,
    st.sampled_from([0, 0, 10, 131_060, 131_070]),
    st.just("")
    | _DIGITS.map(".{}".format)
    | st.sampled_from([16_370, 16_380]).map(lambda zeros: "." + "0" * zeros + "1"),
    st.just("")
    | st.integers(-16_400, 16_400).map("e{}".format)
    | st.integers(131_000, 131_100).map("E+{}".format)
    | st.integers(-3_000_000_000, 3_000_000_000).map("e{}".format),
)  # fmt: skip
_TEXTS = st.text(alphabet=st.characters(codec=None), max_size=10).map(json.dumps) | st.sampled_from(
    [r'"\u0000"', r'"\\u0000"', r'"\ud800\udc00"', r'"\udc00\ud800"', r'"\ud800\ud800"', r'"\/\b\f\u001f"']
)
_VALUES = st.recursive(
    _NUMBERS | _TEXTS | st.sampled_from(["true", "false", "null", "NaN", "-0", "-1e-5", "01", "+1", "1."]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]")
        | st.lists(st.tuples(_TEXTS, inner), max_size=3).map(lambda parts: "{" + ",".join(map(":".join, parts)) + "}")
    ),
    max_leaves=6,
)


def payload_of(value: str) -> bytes:
    return f'{{"userId":"u","properties":{{"value":{value}}}}}'.encode("utf-8", "surrogatepass")


def is_accepted(payload: bytes) -> bool:
    try:
        read_event(payload, TenantId(1), LIMITS, doubts_of(payload), uuid.uuid4, kind=EventType.PAGE)
    except InvalidEventError:
        return False
    return True


def is_held(conn: Conn, payload: bytes) -> bool:
    try:
        conn.execute("SELECT jsonb_send(convert_from(%s, 'UTF8')::jsonb)", (payload,))
    except psycopg.errors.DataError:
        return False
    return True


@given_settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=_VALUES)
def test_what_is_accepted_is_held(conn: Conn, value: str) -> None:
    payload = payload_of(value)
    if is_accepted(payload):
        assert is_held(conn, payload)


@pytest.mark.parametrize("number", HELD_NUMBERS + TOO_MUCH, ids=lambda number: number[:20])
def test_the_edges_of_numbers_are_postgresqls_own(conn: Conn, number: str) -> None:
    payload = payload_of(number)
    assert is_accepted(payload) == is_held(conn, payload) == (number in HELD_NUMBERS)


@given_settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=_TEXTS)
def test_texts_are_refused_only_where_they_must_be(conn: Conn, value: str) -> None:
    payload = payload_of(value)
    assert is_accepted(payload) == is_held(conn, payload)
