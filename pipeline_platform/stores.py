"""Files at any address that fsspec knows (a path, s3://…, memory://…): reached, written whole, weighed and removed.

A file gets its name only when it is complete. Local files are flushed to disk; other stores answer after they stored.
"""

import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import fsspec.core
from fsspec.implementations.local import LocalFileSystem

from pipeline_platform.errors import PipelineError
from pipeline_platform.settings import Settings

# fsspec has no type hints.
fs: Any = fsspec.core

UNFINISHED = ".unfinished"
_PIECE_BYTES = 1 << 20


@contextmanager
def reachable(address: str) -> Generator[None]:
    """Turn every error of a file system into a PipelineError: the address cannot be used now."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        # Each store has its own errors.
        raise PipelineError(f"{address}: {type(error).__name__}: {error}") from error


def place(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    return fs.url_to_fs(address)


def root(url: str) -> str:
    """An address that is the same for every process: a path is made absolute."""
    url = url.rstrip("/")
    return url if "://" in url else str(Path(url).absolute())


def files_root(settings: Settings) -> str:
    """Where pages and files that people read are written."""
    return root(settings.files_url or str(settings.home))


@contextmanager
def new_file(address: str) -> Generator[IO[bytes]]:
    """A file to write, with its directory. Call only within `reachable`."""
    system, path = place(address)
    system.makedirs(path.rpartition("/")[0], exist_ok=True)
    with system.open(path, "wb") as file:
        yield file


def rename(unfinished: str, address: str) -> None:
    """Give a complete file its name, for good."""
    system, source = place(unfinished)
    path = place(address)[1]
    system.mv(source, path)
    _make_durable(system, path)


def write_whole(address: str, content: bytes) -> None:
    """Write or replace a file at once. PipelineError if the address cannot be used."""
    unfinished = f"{address}{UNFINISHED}"
    with reachable(address):
        with new_file(unfinished) as file:
            file.write(content)
        rename(unfinished, address)


def read_whole(address: str) -> bytes:
    """The content of a file. PipelineError if it cannot be read."""
    with reachable(address):
        system, path = place(address)
        return system.cat_file(path)


def weigh(address: str) -> tuple[int, str]:
    """A file's size in bytes and its SHA-256."""
    digest, size = hashlib.sha256(), 0
    with reachable(address):
        system, path = place(address)
        with system.open(path, "rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
                size += len(piece)
    return size, digest.hexdigest()


def remove(address: str) -> None:
    """Remove a file, or a directory with all that is in it, if it exists."""
    with reachable(address):
        system, path = place(address)
        if system.exists(path):
            system.rm(path, recursive=True)


def _make_durable(system: Any, path: str) -> None:
    """Flush a local file to disk, so that it survives a power loss; other stores answer after they stored it."""
    if not isinstance(system, LocalFileSystem):
        return
    for local in (path, path.rpartition("/")[0]):
        number = os.open(local, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
