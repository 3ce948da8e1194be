"""Homes of the platform that go away."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A directory that goes away; not pytest's, which are closed to the account that PostgreSQL runs as."""
    path = Path(tempfile.mkdtemp(prefix="pipeline-test-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)
