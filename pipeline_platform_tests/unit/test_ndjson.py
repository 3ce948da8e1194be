"""Files of lines: what is read of them, and what is said of those that are none."""

import bz2
import lzma
from pathlib import Path

import pytest
import zstandard

from pipeline_platform.errors import ConfigError, InvalidEventError
from pipeline_platform.event.ndjson import numbered, open_lines


@pytest.mark.parametrize(
    ("content", "command"),
    [
        ("{}".encode("utf-16"), "iconv -f UTF-16"),
        (zstandard.compress(b"{}"), "zstd -dc"),
        (bz2.compress(b"{}"), "bzip2 -dc"),
        (lzma.compress(b"{}"), "xz -dc"),
        (b"PK\x03\x04", "unzip -p"),
    ],
)
def test_a_file_of_another_kind_is_named_with_the_command_that_helps(
    tmp_path: Path, content: bytes, command: str
) -> None:
    (tmp_path / "events").write_bytes(content)
    with pytest.raises(ConfigError, match=command), open_lines(str(tmp_path / "events")):
        pass


def test_a_directory_and_a_file_that_is_not_there_are_no_files(tmp_path: Path) -> None:
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "x", "No such file")):
        with pytest.raises(ConfigError, match=why), open_lines(str(path)):
            pass


def test_lines_are_numbered_as_an_editor_numbers_them(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\n  two  \n" + b"x" * 100_000 + b"\nfive")
    with open_lines(str(path)) as lines:
        found = list(numbered(lines, 10))
    assert [number for number, _ in found] == [1, 3, 4, 5]
    assert [line for _, line in found if isinstance(line, bytes)] == [b"one", b"two", b"five"]
    assert isinstance(found[2][1], InvalidEventError)


def test_a_line_of_just_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b"x" * 10 + b"\n" + b"y" * 10 + b"\n" + b"z" * 11)
    with open_lines(str(path)) as lines:
        found = [line for _, line in numbered(lines, 10)]
    assert found[:2] == [b"x" * 10, b"y" * 10]
    assert isinstance(found[2], InvalidEventError)
