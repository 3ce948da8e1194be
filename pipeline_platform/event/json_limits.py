r"""Finds JSON that is valid but that another reader cannot hold, once, before an event is accepted.

PostgreSQL's jsonb cannot hold `\u0000`, lone surrogates, invalid UTF-8 or numbers beyond its numeric type. Readers with
a recursion limit cannot read deep nesting. Integers beyond 64 bits are allowed: they are kept exactly, and no later
step makes floats of them. A key that occurs twice is allowed: the last one counts, for msgspec and for jsonb.

The work is split for speed. `doubts_of` checks a whole body once and cheaply. Each event is then checked only for the
faults that `doubts_of` could not rule out. Never alters a byte.
"""

import re
from dataclasses import dataclass

from pipeline_platform.errors import InvalidEventError

# PostgreSQL's numeric: digits before and after the decimal point. Measured at the edges with PostgreSQL 18.
_DIGITS_BEFORE_MAX = 131_072
_DIGITS_AFTER_MAX = 16_383
# Limits all zeros of exponents of one event together: 1e9999 is 6 bytes here and 10 kB when it is printed.
_EXPONENT_ZEROS_MAX = 1 << 20

# Possessive (*+, ++): bodies may be hostile, and backtracking would take quadratic time.
STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_GOOD_ESCAPES = re.compile(
    rb"(?:[^\\]++|\\[^u]|\\u(?!0000|[dD][89a-fA-F])|\\u[dD][89abAB]..\\u[dD][c-fC-F]..)*+", re.DOTALL
)
# Only numbers with a long exponent or a long run of digits come near the limits.
_NUMBER = re.compile(rb"-?([0-9]++)(?:\.([0-9]++))?+(?:[eE]([+-]?[0-9]++))?+")
_DIGITS_AS_ZERO = bytes.maketrans(b"123456789E+", b"000000000e-")
_LONG_EXPONENTS = (b"0e0000", b"0e-0000")
_DIGIT_RUN = b"0" * 10_000
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


@dataclass(frozen=True, slots=True)
class Doubts:
    """The faults that a check of a whole body could not rule out for its events."""

    utf8: bool
    escapes: bool
    exponents: bool


def doubts_of(body: bytes) -> Doubts:
    """Takes about a microsecond per kilobyte. False: no event in the body has that fault."""
    return Doubts(
        utf8=not is_utf8(body),
        escapes=b"\\" in body and b"\\u" in body,
        exponents=_has_long_exponent(body),
    )


def check_text(payload: bytes, doubts: Doubts) -> None:
    """Raises InvalidEventError if a string is no text. Call it before parsing: parsers skip strings unread."""
    if doubts.utf8 and not is_utf8(payload):
        raise InvalidEventError("invalid_utf8", "the bytes are not valid UTF-8")
    if doubts.escapes:
        _check_escapes(payload)


def check_values(payload: bytes, doubts: Doubts, nesting_max: int) -> None:
    """Raises InvalidEventError if valid JSON is nested too deeply or has numbers that PostgreSQL cannot hold."""
    if (doubts.exponents and _has_long_exponent(payload)) or (
        len(payload) > len(_DIGIT_RUN) and _DIGIT_RUN in payload.translate(_DIGITS_AS_ZERO)
    ):
        _check_numbers(payload)
    if payload.count(b"{") + payload.count(b"[") > nesting_max and is_deeper(payload, nesting_max):
        raise too_deep(nesting_max)


def too_deep(nesting_max: int) -> InvalidEventError:
    return InvalidEventError("nesting_too_deep", f"nested deeper than {nesting_max} levels")


def is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_deeper(payload: bytes, nesting_max: int) -> bool:
    """Whether valid JSON is nested deeper. Removes the innermost pairs of brackets, one level per pass."""
    pairs = STRING.sub(b"", payload).translate(_BRACKETS, _NOT_BRACKETS)
    for _ in range(nesting_max):
        if not pairs:
            return False
        pairs = pairs.replace(b"[]", b"")
    return bool(pairs)


def _has_long_exponent(data: bytes) -> bool:
    """Whether there is a number like 1e1000. Most text of that form is part of a hexadecimal id and does not count."""
    shapes = data.translate(_DIGITS_AS_ZERO)
    for shape in _LONG_EXPONENTS:
        at = shapes.find(shape)
        while at >= 0:
            before = data[max(0, at - 400) : at + 1].rstrip(b"0123456789.-")
            if not before or before[-1] in b":,[ \t\r\n":
                return True
            at = shapes.find(shape, at + 1)
    return False


def _check_escapes(payload: bytes) -> None:
    good = _GOOD_ESCAPES.match(payload)
    end = good.end() if good else 0
    if end == len(payload):
        return
    if payload.startswith(b"\\u0000", end):
        raise InvalidEventError("nul_character", r"a string holds \u0000, which PostgreSQL cannot store")
    escape = payload[end : end + 6].decode("ascii", "replace")
    raise InvalidEventError("lone_surrogate", f"a string holds {escape}, half of a pair: no Unicode text")


def _check_numbers(payload: bytes) -> None:
    zeros = 0
    for number in _NUMBER.finditer(STRING.sub(b"", payload)):
        whole, fraction, exponent_text = number.groups(default=b"")
        if len(exponent_text) < 4 and len(whole) + len(fraction) < len(_DIGIT_RUN):
            continue
        # Such an exponent is out of range for every reader, and int() refuses thousands of digits.
        exponent_digits = exponent_text.lstrip(b"+-").lstrip(b"0")
        exponent = int(exponent_digits or b"0") if len(exponent_digits) < 8 else 10**8
        if exponent_text.startswith(b"-"):
            exponent = -exponent
        digits = len((whole + fraction).lstrip(b"0"))
        before = digits - len(fraction) + exponent if digits else 0
        after = len(fraction) - exponent
        zeros += abs(exponent)
        if before > _DIGITS_BEFORE_MAX or after > _DIGITS_AFTER_MAX or zeros > _EXPONENT_ZEROS_MAX:
            shown = number.group()[:40].decode()
            raise InvalidEventError("number_out_of_range", f"the number {shown} is beyond what PostgreSQL holds")
