"""What operators are shown holds no secret, whatever document it stands in, and is else as it was."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_platform.dead_letters.masking import mask

_PLANTED = "planted-secret"
_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r'{"apiKey": "k", "user_password":"p\"w"}', '{"apiKey": "***", "user_password":"***"}'),
        ('{"creditCard": {"n":["}"]},"api-key":1,"a":1.50}', '{"creditCard": "***","api-key":"***","a":1.50}'),
        ('{"tokens":["a","b"],"n":2}', '{"tokens":"***","n":2}'),
        (r'{"body":"{\"token\":\"abc\",\"n\":1}","z":1}', r'{"body":"{\"token\":\"***\",\"n\":1}","z":1}'),
        (r'{"pass\u0077ord":"x"}', r'{"pass\u0077ord":"***"}'),
        ('{"secret": "unterminated', '{"secret": "***"'),
        ('Failing row: {"token": true, "a": null}', 'Failing row: {"token": "***", "a": null}'),
        (r'{"x":"a\\","n":"\u0000"}', r'{"x":"a\\","n":"\u0000"}'),
    ],
)  # fmt: skip
def test_values_of_secret_keys_are_hidden(text: str, shown: str) -> None:
    assert mask(text) == shown


@given(
    around=st.dictionaries(st.text(), _PLAIN, max_size=4),
    secret=st.sampled_from([_PLANTED, [_PLANTED], {"a": {"b": _PLANTED}}]),
    key=st.sampled_from(["password", "Api-Key", "credit_card", "refreshTokens"]),
    depth=st.integers(0, 2),
    cut=st.integers(0, 5),
)
def test_no_document_shows_what_is_under_a_secret_key(
    around: dict[str, Any], secret: Any, key: str, depth: int, cut: int
) -> None:
    text = json.dumps(around | {key: secret})
    for _ in range(depth):
        text = json.dumps({**around, "inner": text})
    assert _PLANTED not in mask(text)
    assert _PLANTED not in mask(text[: len(text) - cut])
