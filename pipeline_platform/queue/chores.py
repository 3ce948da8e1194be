"""Runs chores in turn and independently: one that fails or is slow does not stop the others, and is recorded.

queue.chores has the time when each was last done, and its error while it fails. The alert `chore_late` reads it.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg

from pipeline_platform.db import queries

_LOG = logging.getLogger(__name__)
_SQL = queries("queue")
# A chore that runs every second is noted less often.
_NOTE_EVERY_S = 10.0
_ERROR_CHARS_MAX = 500


@dataclass(frozen=True, slots=True)
class Chore:
    """`work` does a short piece of it, in autocommit mode. late_s: the delay after which operators are alerted."""

    name: str
    every_s: float
    late_s: float
    work: Callable[[psycopg.Connection[Any]], None]


class Chores:
    """Runs the chores that are due. Not for use by several threads."""

    def __init__(self, chores: Sequence[Chore]) -> None:
        self._chores = chores
        self._due_at = {chore.name: float("-inf") for chore in chores}
        self._noted_at = dict(self._due_at)
        self._failing: set[str] = set()

    def run_due(self, conn: psycopg.Connection[Any]) -> None:
        """Run one piece of each chore that is due. Raises psycopg errors only if the connection is lost."""
        for chore in self._chores:
            if time.monotonic() < self._due_at[chore.name]:
                continue
            error = _error_of(chore, conn)
            self._due_at[chore.name] = time.monotonic() + chore.every_s
            self._note(conn, chore, error)

    def _note(self, conn: psycopg.Connection[Any], chore: Chore, error: str | None) -> None:
        changed = (error is not None) != (chore.name in self._failing)
        if not changed and time.monotonic() < self._noted_at[chore.name] + _NOTE_EVERY_S:
            return
        if error and changed:
            _LOG.warning("the chore %s fails: %s", chore.name, error)
        params = {"name": chore.name, "late_after": timedelta(seconds=chore.late_s), "error": error}
        conn.execute(_SQL["note_chore"], params)
        self._noted_at[chore.name] = time.monotonic()
        (self._failing.add if error else self._failing.discard)(chore.name)


def _error_of(chore: Chore, conn: psycopg.Connection[Any]) -> str | None:
    """Run a piece of the chore. Returns its error, or None."""
    try:
        chore.work(conn)
    except psycopg.Error as error:
        if conn.closed:
            raise
        return (error.diag.message_primary or str(error))[:_ERROR_CHARS_MAX]
    except Exception as error:  # noqa: BLE001 -- a fault of one chore must not stop the others; it is logged and alerted
        _LOG.exception("the chore %s has a fault", chore.name)
        return f"{type(error).__name__}: {error}"[:_ERROR_CHARS_MAX]
    return None
