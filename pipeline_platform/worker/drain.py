"""Drains one hour with the workers' own engine. The control plane runs it to finish an hour.

A drain has no pool that counts what it held when it died. The next drain of the same home counts it. Work that may have
killed a drain is left to the workers, which try it alone.
"""

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg

from pipeline_platform.db import connect, queries
from pipeline_platform.dead_letters.circuit import is_open
from pipeline_platform.errors import NotNowError
from pipeline_platform.lookups import Lookups
from pipeline_platform.queue.batches import claim_hour
from pipeline_platform.queue.claim_notes import ClaimNote, read_claim_note
from pipeline_platform.settings import Settings
from pipeline_platform.worker.engine import PLANNING, Engine, Processed

_SQL = queries("queue")
_BATCHES_AT_ONCE = 16
_PAUSE_S = 0.2


def drain_hour(settings: Settings, hour: datetime, *, wait_s: float = 60.0) -> Processed:
    """Process all open work of `hour` (UTC, whole). Returns what was done here, without what live workers did.

    Waits for work that a live worker holds. Raises NotNowError after `wait_s` seconds without progress.
    """
    done = Processed()
    lookups = Lookups(settings, settings.redis_url)
    with connect(settings.database_url, f"drain {hour:%Y-%m-%dT%H}", statement_timeout_s=60, more=PLANNING) as conn:
        engine = Engine(settings, conn, lookups)
        count_dead_drains(conn, settings.home)
        with _note(settings.home, hour) as note:
            progress_at = time.monotonic()
            while True:
                if is_open(conn):
                    raise NotNowError(
                        "the circuit is open, nothing is processed; see: pipeline-platform circuit status"
                    )
                step = engine.step(
                    lambda conn: claim_hour(conn, hour, _BATCHES_AT_ONCE),
                    lambda works: note.write([work.work_id for work in works]),
                )
                done += step
                if step.claimed:
                    progress_at = time.monotonic()
                    continue
                row = conn.execute(_SQL["hour_work"], {"hour": hour}).fetchone()
                if not row or not row[0]:
                    break
                if time.monotonic() - progress_at > wait_s:
                    raise NotNowError(
                        f"{row[0]} pieces of work of {hour:%Y-%m-%d %H}:00 are held by live workers or suspect of "
                        "crashing them; look at: pipeline-platform status, then materialize the hour again"
                    )
                time.sleep(_PAUSE_S)
    lookups.close()
    return done


@contextmanager
def _note(home: Path, hour: datetime) -> Generator[ClaimNote]:
    """The note of this drain. It is deleted when the drain ends, unless the process dies."""
    path = home / "claims" / f"drain-{os.getpid()}-{hour:%Y%m%d%H}"
    try:
        yield ClaimNote(path)
    finally:
        path.unlink(missing_ok=True)


def count_dead_drains(conn: psycopg.Connection[Any], home: Path) -> None:
    """Count a death against what dead drains held, as the pool does for its workers."""
    for path in (home / "claims").glob("drain-*"):
        if psutil.pid_exists(int(path.name.split("-")[1])):
            continue
        conn.execute(_SQL["reap"], (list(read_claim_note(path).work_ids),))
        path.unlink(missing_ok=True)
