"""Files with one JSON object per line, which operators send and import.

A line that cannot be used does not affect other lines. A damaged file cannot be read after the damage. Lines are
bounded: no more than the limit of a longer line is held in memory.
"""

import gzip
import zlib
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import msgspec

from pipeline_platform.errors import ConfigError, DamagedFileError, InvalidEventError

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_PIECE = 1 << 16
_MAGIC = 8
# Other formats by their first bytes, and the commands that convert them.
_OTHERS = {
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -dc"),
    b"BZh": ("bzip2", "bzip2 -dc"),
    b"\xfd7zXZ": ("xz", "xz -dc"),
    b"PK\x03\x04": ("zip", "unzip -p"),
    b"\xff\xfe": ("UTF-16", "iconv -f UTF-16 -t UTF-8"),
    b"\xfe\xff": ("UTF-16", "iconv -f UTF-16 -t UTF-8"),
}


@contextmanager
def open_lines(path: str) -> Generator[IO[bytes]]:
    """A file of lines, plain or gzip by its content. `-` is standard input. Raises ConfigError if it is none."""
    with _opened(path) as (plain, first):
        for magic, (kind, command) in _OTHERS.items():
            if first.startswith(magic):
                raise ConfigError(f"{path} is {kind}: give its content, `{command} FILE | pipeline-platform … -`")
        if not first.startswith(_GZIP):
            yield plain
            return
        with gzip.open(plain) as unpacked:
            yield unpacked  # pyright: ignore[reportReturnType]  # a GzipFile reads as IO[bytes]


@contextmanager
def _opened(path: str) -> Generator[tuple[IO[bytes], bytes]]:
    """The file and its first bytes."""
    with ExitStack() as stack:
        try:
            plain = open(0, "rb", closefd=False) if path == "-" else Path(path).open("rb")  # noqa: SIM115
            stack.callback(plain.close)
            first = plain.peek(_MAGIC)[:_MAGIC]
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        yield plain, first


def numbered(lines: IO[bytes], bytes_max: int) -> Iterator[tuple[int, bytes | InvalidEventError]]:
    """Each line that is not empty, with its number and without its end. An error if the line is too long.

    Raises DamagedFileError if the file cannot be read further.
    """
    number = 0
    try:
        while line := lines.readline(bytes_max + 1):
            number += 1
            if len(line) > bytes_max and not line.endswith(b"\n"):
                _skip_line(lines)
                yield number, InvalidEventError("too_long", f"longer than {bytes_max} bytes")
                continue
            stripped = (line.removeprefix(_BOM) if number == 1 else line).strip()
            if stripped:
                yield number, stripped
    except (OSError, EOFError, zlib.error) as error:
        raise DamagedFileError(number, str(error)) from error


def pieces(lines: IO[bytes]) -> Iterator[bytes]:
    """The whole content. Raises DamagedFileError if it cannot be read further."""
    try:
        while piece := lines.read(1 << 20):
            yield piece
    except (OSError, EOFError, zlib.error) as error:
        raise DamagedFileError(None, str(error)) from error


def _skip_line(lines: IO[bytes]) -> None:
    while (piece := lines.readline(_PIECE)) and not piece.endswith(b"\n"):
        pass


def read_object(line: bytes) -> dict[str, msgspec.Raw]:
    """The fields of one line, undecoded. Raises InvalidEventError."""
    try:
        return _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEventError("invalid_json", f"no JSON object: {error}") from error


def peek_text(token: msgspec.Raw | None) -> str | None:
    """The text of a JSON string, or None for other values. Raises InvalidEventError if it is no Unicode."""
    if token is None:
        return None
    try:
        value = msgspec.json.decode(token)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEventError("invalid_json", str(error)) from error
    return value if isinstance(value, str) else None


def write_object(fields: dict[str, msgspec.Raw]) -> bytes:
    """The fields as one JSON object. Each value keeps its bytes."""
    return msgspec.json.encode(fields)
