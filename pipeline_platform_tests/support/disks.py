"""Small disks that can be filled to the last byte: tmpfs, so root only; elsewhere the test is skipped."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pipeline_platform_tests.support.homes import temporary_home

_PIECE = bytes(1 << 16)


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """The place where it is mounted."""
    if os.geteuid() != 0:
        pytest.skip("small disks are mounted by root only")
    with temporary_home() as place:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", place],
            capture_output=True,
            text=True,
        )
        if mounted.returncode:
            pytest.skip(f"a small disk cannot be mounted here (root is needed): {mounted.stderr.strip()}")
        try:
            yield place
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path) -> None:
    """To the last byte, with a file of our own."""
    for piece in (_PIECE, b"x"):
        with (disk / "ballast").open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(piece)


def make_room(disk: Path) -> None:
    (disk / "ballast").unlink()
