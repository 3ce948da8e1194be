"""When a worker dies, its work is tried alone in ever smaller parts. A last single event is buried as exhausted.

Deaths are counted outside the dead worker's transaction, which left no trace (query reap). Every part is tried before
it is split again, so an event is buried only if it killed a worker while it was processed alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from pipeline_platform.dead_letters.store import Failure, bury
from pipeline_platform.queue.batches import Work, claim_suspect, complete, read, split
from pipeline_platform.settings import Settings
from pipeline_platform.worker.engine import Engine

# The most events tried at once, by the number of deaths; single events after more. Before the first death the work was
# processed with the rest of its claim, before the second alone. 5,000 events are reduced to one after four deaths, in
# about 60 short transactions.
_EVENTS_AFTER_DEATHS = {0: 1 << 31, 1: 1 << 31, 2: 256, 3: 16}
_DEATHS_MAX = 5


def isolate_suspect(settings: Settings, engine: Engine, noted: Callable[[Sequence[Work]], None]) -> bool:
    """Take one suspect piece of work and try, split or bury it. False if there is none."""
    found = False

    def claim(conn: psycopg.Connection[Any]) -> list[Work]:
        nonlocal found
        works = claim_suspect(conn)
        found = bool(works)
        return [work for work in works if not _split_or_buried(settings, conn, work)]

    engine.step(claim, noted)
    return found


def _split_or_buried(settings: Settings, conn: psycopg.Connection[Any], work: Work) -> bool:
    """Split or bury work that caused too many deaths. False: it is to be tried as it is."""
    events_max = _EVENTS_AFTER_DEATHS.get(work.deaths, 1)
    if work.events > events_max:
        split(conn, work, events_max)
        return True
    if work.deaths < max(_DEATHS_MAX, settings.attempts_max):
        return False
    (event,) = read(work)
    text = f"{work.deaths} workers died processing this event"
    bury(conn, settings, [Failure(event, "transform", "WorkerCrashedError", text)], exhausted=True)
    complete(conn, [work])
    return True
