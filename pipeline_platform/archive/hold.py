"""Allows one erasure, archive, restore or readmission at a time: none may read what another is changing."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.errors import PipelineError

_SQL = queries("archive")
_WAIT_S_MAX = 600.0
_PAUSE_S = 0.1


@contextmanager
def exclusively(conn: psycopg.Connection[Any]) -> Generator[None]:
    """Run while no other erasure, archive, restore or readmission runs. PipelineError after waiting ten minutes."""
    deadline = time.monotonic() + _WAIT_S_MAX
    # Polls: a wait inside the server would be an open transaction, and an erasure waits for those.
    while conn.execute(_SQL["try_hold"]).fetchone() == (False,):
        if time.monotonic() > deadline:
            raise PipelineError(
                "another erasure, archive, restore or readmission is under way: wait for it, then run this again"
            )
        time.sleep(_PAUSE_S)
    try:
        yield
    finally:
        if not conn.closed:
            conn.rollback()
            conn.execute(_SQL["release"])
