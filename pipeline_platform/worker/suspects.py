"""Work whose worker died: first alone, then halved until one event remains; that one is buried as exhausted.

Attempts are counted outside the dead worker's transaction, which left no trace (query reap_claim).
"""

from dataclasses import dataclass
from typing import Any

import psycopg

from pipeline_platform.queue.batches import Work, claim_suspect, complete, read, split
from pipeline_platform.settings import Settings
from pipeline_platform.worker.dead_letters import Failure, bury
from pipeline_platform.worker.engine import Processed

_SPLIT_FROM_ATTEMPTS = 2


@dataclass(slots=True)
class Judged:
    """What was found: work to process alone, or what isolating it did."""

    work: list[Work]
    processed: Processed


def judge_suspect(settings: Settings, conn: psycopg.Connection[Any]) -> Judged:
    """Take one suspect piece of work (call outside a transaction): split it, bury it, or leave it to be tried alone."""
    with conn.transaction():
        works = claim_suspect(conn)
        if not works:
            return Judged([], Processed())
        (work,) = works
        if work.events > 1 and work.attempts >= _SPLIT_FROM_ATTEMPTS:
            split(conn, work)
            return Judged([], Processed())
        if work.events == 1 and work.attempts >= settings.attempts_max:
            (event,) = read(work)
            crashed = Failure(
                event,
                "transform",
                "WorkerCrashedError",
                f"{work.attempts} workers died processing this event",
            )
            bury(conn, settings, [crashed], exhausted=True)
            complete(conn, works)
            return Judged([], Processed(claimed=1, dead_lettered=1))
    return Judged(works, Processed())
