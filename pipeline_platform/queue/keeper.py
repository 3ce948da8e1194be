"""The queue's chores, one tick a second, in every worker pool. Any number of keepers may run.

Folds the account, recounts roll-ups, opens partitions ahead, seals hours, drops hours past retention, rotates the
identity keys. Each chore is bounded and independent of the others (see Chores). The next tick does what a tick could
not do. The alerts `chore_late` and `hours_overdue` tell an operator.
"""

import logging
import time
from datetime import timedelta
from typing import Any

import psycopg

from pipeline_platform.analytics import rollups
from pipeline_platform.db import queries
from pipeline_platform.queue.chores import Chore, Chores
from pipeline_platform.queue.pruning import ROWS_AT_ONCE, prune
from pipeline_platform.settings import Settings

_LOG = logging.getLogger(__name__)
_SQL = queries("queue")
_SELDOM_S = 30.0
_SOON_S, _LATER_S = 300.0, 3600.0
# Deltas that one statement folds, in about 0.2 s, and how long a tick folds. 12 million take minutes this way.
_DELTAS, _DELTAS_MIN = 20_000, 500
_FOLD_S = 0.5
# The part of the keeper's time that roll-ups may take. It decides how fresh they are, because the current hour is
# recounted as a whole each time. The pieces are too short to delay other chores.
_ROLLUPS_SHARE = 0.05
_ROLLUPS_S = 0.05
# Hours that one round drops, so that a wrong clock or setting cannot drop all of them at once.
_HOURS_A_ROUND = 1

# For a keeper's connection. It runs many chores, and none of them may wait long for a lock.
LOCK_TIMEOUT_S = 0.25

Conn = psycopg.Connection[Any]


class Keeper:
    """Runs the chores on one connection at a time, which has `LOCK_TIMEOUT_S`. Lives as long as its pool."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rollups_at = float("-inf")
        self._deltas = _DELTAS
        self._looked_at: float | None = None
        self._chores = Chores([
            Chore("note_clock", 0, _SOON_S, self._note_clock),
            Chore("fold", 0, _SOON_S, self._fold),
            Chore("seal_hours", 0, _SOON_S, seal_due_hours),
            Chore("roll_up", 0, _LATER_S, self._refresh_rollups),
            Chore("open_partitions", _SELDOM_S, _SOON_S, open_partitions),
            Chore("drop_hours", _SELDOM_S, _LATER_S, self._drop_hours),
            Chore("rotate_keys", _SELDOM_S, _LATER_S, self._rotate_keys),
            Chore("prune_replays", _SELDOM_S, _LATER_S, self._prune_replays),
            Chore("prune_dead_letters", _SELDOM_S, _LATER_S, self._prune_dead_letters),
            Chore("prune_worker_deaths", _SELDOM_S, _LATER_S, prune_worker_deaths),
            Chore("prune_rejected", _SELDOM_S, _LATER_S, self._prune_rejected),
        ])  # fmt: skip

    def tick(self, conn: Conn) -> None:
        """Run one round of chores. Raises psycopg errors if the connection is lost. The caller reconnects."""
        self._chores.run_due(conn)

    def _note_clock(self, conn: Conn) -> None:
        """Compare the database's clock with the time that has passed since the last look."""
        now = _boot_time()
        conn.execute(_SQL["note_clock"], (None if self._looked_at is None else now - self._looked_at,))
        self._looked_at = now

    def _fold(self, conn: Conn) -> None:
        """Fold in portions. Make them smaller if PostgreSQL is too slow for them."""
        until = time.monotonic() + _FOLD_S
        try:
            while fold(conn, self._deltas) == self._deltas and time.monotonic() < until:
                pass
        except psycopg.errors.QueryCanceled:
            self._deltas = max(_DELTAS_MIN, self._deltas // 4)
            raise

    def _refresh_rollups(self, conn: Conn) -> None:
        begin = time.monotonic()
        if begin < self._rollups_at:
            return
        while rollups.refresh(conn) == rollups.PORTION and time.monotonic() - begin < _ROLLUPS_S:
            pass
        self._rollups_at = begin + (time.monotonic() - begin) / _ROLLUPS_SHARE

    def _drop_hours(self, conn: Conn) -> None:
        archived_only = bool(self._settings.archive_url)
        drop_old_hours(conn, self._settings.retention, archived_only=archived_only, most=_HOURS_A_ROUND)

    def _rotate_keys(self, conn: Conn) -> None:
        span = timedelta(hours=self._settings.key_generation_h)
        conn.execute(_SQL["rotate_keys"], (span, self._settings.retention))

    def _prune_replays(self, conn: Conn) -> None:
        conn.execute(_SQL["prune_replays"], (self._settings.retention, ROWS_AT_ONCE))

    def _prune_dead_letters(self, conn: Conn) -> None:
        conn.execute(_SQL["prune_dead_letters"], (self._settings.retention, ROWS_AT_ONCE))

    def _prune_rejected(self, conn: Conn) -> None:
        prune(conn, self._settings)


def _boot_time() -> float:
    """Seconds since a fixed moment, including the sleep of the machine."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def prune_worker_deaths(conn: Conn) -> None:
    """Forget the deaths of workers that are a day old."""
    conn.execute(_SQL["prune_worker_deaths"])


def fold(conn: Conn, most: int) -> int:
    """Move up to `most` deltas of the account into the counters. Fewer than `most`: no more are left."""
    row = conn.execute(_SQL["fold"], (most,)).fetchone()
    return row[0] if row else 0


def open_partitions(conn: Conn) -> None:
    """Make the partitions that the next hours need."""
    conn.execute(_SQL["open_ahead"])


def seal_due_hours(conn: Conn) -> None:
    """Seal every past hour that no transaction can write into. The next tick tries the others again."""
    for (hour,) in conn.execute(_SQL["unsealed_hours"]).fetchall():
        conn.execute(_SQL["seal_hour"], (hour,))


def drop_old_hours(
    conn: Conn, retention: timedelta, *, archived_only: bool = False, most: int | None = None
) -> dict[str, str]:
    """Drop the batches of hours sealed longer than `retention` ago. Returns why others had to stay, by hour (ISO).

    archived_only: only hours that are in an archive. The keeper archives nothing itself, so an hour waits for that.
    most: how many are dropped in one call. A long-running reader ends the round, because each further try would block
    the gateway.
    """
    conn.execute(_SQL["note_clock"], (None,))
    refused: dict[str, str] = {}
    dropped = 0
    for (hour,) in conn.execute(_SQL["hours_past_retention"], (retention,)).fetchall():
        if dropped == most:
            break
        try:
            conn.execute(_SQL["drop_archived_hour" if archived_only else "drop_hour"], (hour, retention))
            dropped += 1
        except psycopg.errors.ObjectNotInPrerequisiteState as error:
            refused[hour.isoformat()] = error.diag.message_primary or str(error)
        except psycopg.errors.ObjectInUse as error:
            refused[hour.isoformat()] = error.diag.message_primary or str(error)
            _LOG.warning("hour %s stays: %s", hour.isoformat(), refused[hour.isoformat()])
        except psycopg.errors.LockNotAvailable as error:
            refused[hour.isoformat()] = error.diag.message_primary or str(error)
            _LOG.warning(
                "hour %s and later ones stay: a session has been reading them for a long time", hour.isoformat()
            )
            break
    return refused
