"""Files with one JSON object a line: what operators send and import."""

import gzip
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from pipeline_platform.errors import InvalidEventError

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@contextmanager
def open_lines(path: str) -> Generator[IO[bytes]]:
    """A file of lines, plain or gzip by its content; `-` is standard input. Raises OSError."""
    if path == "-":
        yield sys.stdin.buffer
        return
    with Path(path).open("rb") as plain:
        if plain.peek(2)[:2] != b"\x1f\x8b":
            yield plain
            return
        with gzip.open(plain) as unpacked:
            yield unpacked  # pyright: ignore[reportReturnType]  # a GzipFile reads as IO[bytes]


def read_object(line: bytes) -> dict[str, msgspec.Raw]:
    """The fields of one line, undecoded. Raises InvalidEventError."""
    try:
        return _decode(line)
    except msgspec.MsgspecError as error:
        raise InvalidEventError("invalid_json", f"no JSON object: {error}") from error


def take_text(fields: dict[str, msgspec.Raw], name: str) -> str:
    """Remove a field of the operator's own, and return its text. Raises InvalidEventError where it has none."""
    token = fields.pop(name, None)
    text = peek_text(token)
    if not text:
        raise InvalidEventError("missing_field", f"no text in the field {name}")
    return text


def peek_text(token: msgspec.Raw | None) -> str | None:
    """The text of a JSON string; None of anything else. Raises InvalidEventError where it is no Unicode."""
    if token is None:
        return None
    try:
        value = msgspec.json.decode(token)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidEventError("invalid_json", str(error)) from error
    return value if isinstance(value, str) else None


def write_object(fields: dict[str, msgspec.Raw]) -> bytes:
    """The fields as one JSON object; each value keeps its bytes."""
    return msgspec.json.encode(fields)
