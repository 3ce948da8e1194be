"""Erases delivered rows and dead letters outside kept batches: of dropped ones, and of a replay under way."""

from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.erasure.batches import erase_batch
from pipeline_platform.erasure.outcomes import Occurrence, discard
from pipeline_platform.erasure.person import Person
from pipeline_platform.erasure.run import Run
from pipeline_platform.erasure.scan import Place
from pipeline_platform.errors import PipelineError

_SQL = queries("erasure")
_LOOKS_MAX = 10
_ROWS_AT_ONCE = 1_000

Conn = psycopg.Connection[Any]


def erase_letters(run: Run) -> None:
    """Erase dead letters whose batch was dropped. The others were erased with their batch."""
    rows = run.conn.execute(_SQL["letters_places"], run.params | {"ids": run.marked("dead_letters")}).fetchall()
    with run.conn.transaction():
        run.conn.execute(_SQL["enter"])
        run.changed(discard(run.conn, run.person, run.erasure_id, [Occurrence(*row) for row in rows]))


def erase_rows(run: Run) -> None:
    """Erase the person's delivered rows until none is left. PipelineError if new ones keep appearing."""
    for _ in range(_LOOKS_MAX):
        run.progress("delivered rows")
        kept, gone = _their_rows(run)
        if not kept and not gone:
            return
        for place, rows in kept.items():
            run.changed(erase_batch(run.conn, run.person, run.erasure_id, place, rows))
        for start in range(0, len(gone), _ROWS_AT_ONCE):
            _erase_gone(run, gone[start : start + _ROWS_AT_ONCE])
    raise PipelineError("rows of this person keep appearing: stop what writes them (a replay?), then erase again")


def _their_rows(run: Run) -> tuple[dict[Place, set[UUID]], list[Occurrence]]:
    """The identities of rows by their kept batch, and the rows whose batch is gone."""
    kept: dict[Place, set[UUID]] = {}
    gone: list[Occurrence] = []
    for batch_id, event_id, received_at, batch_received_at in run.conn.execute(_SQL["their_rows"], run.params):
        if batch_received_at is None:
            gone.append(Occurrence(batch_id, -1, event_id, received_at, received_at, ""))
        else:
            kept.setdefault((batch_id, batch_received_at), set()).add(event_id)
    return kept, gone


def _erase_gone(run: Run, gone: list[Occurrence]) -> None:
    with run.conn.transaction():
        run.conn.execute(_SQL["enter"])
        placed = _with_lanes(run.conn, run.person, gone)
        run.changed(discard(run.conn, run.person, run.erasure_id, placed))


def _with_lanes(conn: Conn, person: Person, gone: list[Occurrence]) -> list[Occurrence]:
    """Assign to rows of dropped batches lanes in which the account has delivered events."""
    free: dict[datetime, list[list[Any]]] = {}
    placed: list[Occurrence] = []
    for one in gone:
        hour = one.received_at.replace(minute=0, second=0, microsecond=0)
        if hour not in free:
            params = {"tenant_id": person.tenant_id, "hour": hour}
            free[hour] = [[lane, left] for lane, left in conn.execute(_SQL["lanes_of_hour"], params)]
        lanes = free[hour]
        while lanes and not lanes[0][1]:
            lanes.pop(0)
        if not lanes:
            raise PipelineError(
                f"the account of {hour.isoformat()} has fewer delivered events than there are rows; "
                "see: pipeline-platform audit"
            )
        lanes[0][1] -= 1
        placed.append(Occurrence(one.batch_id, -1, one.event_id, one.received_at, one.batch_received_at, lanes[0][0]))
    return placed
