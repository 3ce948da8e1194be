"""What JSON allows and PostgreSQL cannot hold, at the very edges (measured with PostgreSQL 18)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_platform.errors import InvalidEventError
from pipeline_platform.event.json_limits import check_text, check_values, doubts_of, is_deeper
from pipeline_platform_tests.support.json_numbers import HELD_NUMBERS, TOO_MUCH


def check(text: bytes, nesting_max: int = 64) -> None:
    doubts = doubts_of(text)
    check_text(text, doubts)
    check_values(text, doubts, nesting_max)


def code_of(text: bytes, nesting_max: int = 64) -> str:
    with pytest.raises(InvalidEventError) as refused:
        check(text, nesting_max)
    return refused.value.code


@pytest.mark.parametrize("number", HELD_NUMBERS, ids=lambda number: number[:20])
@pytest.mark.parametrize("around", [b'{"n":%s}', b"[1, %s, 2]", b'{"a":{"n": %s }}'])
def test_numbers_that_are_held(number: str, around: bytes) -> None:
    check(around % number.encode())


@pytest.mark.parametrize("number", TOO_MUCH, ids=lambda number: number[:20])
@pytest.mark.parametrize("around", [b'{"n":%s}', b"[1, %s, 2]", b'{"a":{"n": %s }}'])
def test_numbers_that_are_not(number: str, around: bytes) -> None:
    assert code_of(around % number.encode()) == "number_out_of_range"


def test_numbers_inside_strings_are_text() -> None:
    check(b'{"a":"1e999999","b":"' + b"9" * 200_000 + b'","c":"4ae1234-9"}')


def test_many_long_exponents_are_too_much_together() -> None:
    check(b"[" + b"1e9999," * 50 + b"1]")
    assert code_of(b"[" + b"1e9999," * 200 + b"1]") == "number_out_of_range"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (rb'{"a":"\u0000"}', "nul_character"),
        (rb'{"\u0000":1}', "nul_character"),
        (rb'{"a":"\\\u0000"}', "nul_character"),
        (rb'{"a":"\ud800"}', "lone_surrogate"),
        (rb'{"a":"\uDfFf"}', "lone_surrogate"),
        (rb'{"a":"\ud800\ud800\udc00"}', "lone_surrogate"),
        (rb'{"a":"\udc00\ud800"}', "lone_surrogate"),
        (rb'{"a":"\ud800\\udc00"}', "lone_surrogate"),
        (rb'{"\ud83d":1}', "lone_surrogate"),
        (b'{"a":"\xff"}', "invalid_utf8"),
        (b'{"a":"\xed\xa0\x80"}', "invalid_utf8"),
        (b'{"a":"\xc0\x80"}', "invalid_utf8"),
        (b'{"\xe2\x82":1}', "invalid_utf8"),
    ],
)
def test_strings_that_are_no_text(text: bytes, code: str) -> None:
    assert code_of(text) == code


@pytest.mark.parametrize(
    "text",
    [
        rb'{"a":"\\u0000"}',
        rb'{"a":"\\\\ud800"}',
        rb'{"a":"\ud83d\ude00\u0001\u00e9"}',
        rb'{"a":"\uD83D\uDE00"}',
        '{"a":"é😀\x7f"}'.encode(),
    ],
)
def test_strings_that_are_text(text: bytes) -> None:
    check(text)


@pytest.mark.parametrize("depth", [1, 63, 64])
def test_nesting_up_to_the_limit(depth: int) -> None:
    check(b'{"a":' * depth + b"1" + b"}" * depth)


@pytest.mark.parametrize("depth", [65, 200, 5_000])
def test_nesting_past_the_limit(depth: int) -> None:
    assert code_of(b'{"a":[' * (depth // 2 + 1) + b"]}" * (depth // 2 + 1)) == "nesting_too_deep"


def test_many_brackets_side_by_side_are_not_deep() -> None:
    check(b"[" + b'{"a":[]},' * 1_000 + b'"[[[[[{{{{"]')


@given(st.recursive(st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_depth_is_exact(value: object) -> None:
    def depth(part: object) -> int:
        if isinstance(part, dict):
            return 1 + max(map(depth, part.values()), default=0)
        if isinstance(part, list):
            return 1 + max(map(depth, part), default=0)
        return 0

    text = json.dumps(value).encode()
    exact = depth(value)
    assert not is_deeper(text, exact)
    assert exact == 0 or is_deeper(text, exact - 1)


@given(st.text(alphabet=st.characters(codec=None), max_size=20))
def test_escaped_text_is_refused_exactly_where_it_is_no_unicode(text: str) -> None:
    escaped = json.dumps({text: text}).encode()
    try:
        json.loads(escaped)[text].encode()
        good = "\0" not in text
    except (UnicodeEncodeError, KeyError):
        good = False
    if good:
        check(escaped)
    else:
        assert code_of(escaped) in {"nul_character", "lone_surrogate"}
