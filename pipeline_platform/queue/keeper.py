"""The queue's chores, one tick a second, wherever a worker pool runs: any number of keepers do no harm.

Folds the account, counts roll-ups anew, opens partitions ahead, seals hours, drops what is past retention, rotates the
identity keys. What
a tick cannot do now the next one does; an operator sees unsealed or undropped hours in `pipeline-platform status`.
"""

import logging
import time
from datetime import timedelta
from typing import Any

import psycopg

from pipeline_platform.analytics import rollups
from pipeline_platform.db import queries
from pipeline_platform.queue.pruning import prune
from pipeline_platform.settings import Settings

_LOG = logging.getLogger(__name__)
_SQL = queries("queue")
_SELDOM_S = 30.0
# Part of the keeper's time that roll-ups may take: how fresh they are follows from it, since the hour under way is
# counted as a whole each time. In pieces that no other chore notices.
_ROLLUPS_SHARE = 0.05
_ROLLUPS_S = 0.05


# For a keeper's connection. While a chore waits for a long reader, all who come later wait behind it, the gateway too.
LOCK_TIMEOUT_S = 0.25


class Keeper:
    """Does the chores on one connection, which has `LOCK_TIMEOUT_S`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seldom_at = float("-inf")
        self._rollups_at = float("-inf")

    def tick(self, conn: psycopg.Connection[Any]) -> None:
        """One round of chores. Raises psycopg errors: the caller reconnects and ticks again."""
        conn.execute(_SQL["fold"])
        seal_due_hours(conn)
        self._refresh_rollups(conn)
        if time.monotonic() - self._seldom_at < _SELDOM_S:
            return
        open_partitions(conn)
        drop_old_hours(conn, self._settings.retention, archived_only=bool(self._settings.archive_url))
        conn.execute(_SQL["prune_replays"], (self._settings.retention,))
        conn.execute(_SQL["prune_dead_letters"], (self._settings.retention,))
        prune(conn, self._settings)
        span = timedelta(hours=self._settings.key_generation_h)
        try:
            conn.execute(_SQL["rotate_keys"], (span, self._settings.retention))
        except psycopg.errors.LockNotAvailable:
            _LOG.warning("identity keys are rotated later: somebody reads them for long")
        self._seldom_at = time.monotonic()

    def _refresh_rollups(self, conn: psycopg.Connection[Any]) -> None:
        begin = time.monotonic()
        if begin < self._rollups_at:
            return
        while rollups.refresh(conn) == rollups.PORTION and time.monotonic() - begin < _ROLLUPS_S:
            pass
        self._rollups_at = begin + (time.monotonic() - begin) / _ROLLUPS_SHARE


def open_partitions(conn: psycopg.Connection[Any]) -> None:
    """Make the partitions that the next hours need."""
    conn.execute(_SQL["open_ahead"])


def seal_due_hours(conn: psycopg.Connection[Any]) -> None:
    """Seal every past hour that nobody writes into any more; the others stay for the next tick."""
    for (hour,) in conn.execute(_SQL["unsealed_hours"]).fetchall():
        conn.execute(_SQL["seal_hour"], (hour,))


def drop_old_hours(
    conn: psycopg.Connection[Any], retention: timedelta, *, archived_only: bool = False
) -> dict[str, str]:
    """Drop the batches of hours sealed longer than `retention` ago; returns why any had to stay, by hour (ISO).

    archived_only: not before they are in an archive. The keeper archives nothing: an hour waits for who does.
    """
    refused: dict[str, str] = {}
    for (hour,) in conn.execute(_SQL["hours_past_retention"], (retention,)).fetchall():
        try:
            conn.execute(_SQL["drop_archived_hour" if archived_only else "drop_hour"], (hour, retention))
        except psycopg.errors.ObjectNotInPrerequisiteState as error:
            refused[hour.isoformat()] = error.diag.message_primary or str(error)
        except (psycopg.errors.ObjectInUse, psycopg.errors.LockNotAvailable) as error:
            refused[hour.isoformat()] = error.diag.message_primary or str(error)
            _LOG.warning("hour %s stays: %s", hour.isoformat(), refused[hour.isoformat()])
    return refused
