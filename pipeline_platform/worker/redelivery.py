"""The retry lane: dead letters that are due go through the same engine again, each in its own savepoint."""

from typing import Any

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.errors import is_bad_data
from pipeline_platform.event import EventType, Lane, QueuedEvent
from pipeline_platform.lookups import Lookups
from pipeline_platform.settings import Settings
from pipeline_platform.worker.dead_letters import failure, postpone
from pipeline_platform.worker.engine import Processed, transform_all
from pipeline_platform.worker.enrich import enrich
from pipeline_platform.worker.load import keep_traits, load, new_rows

_SQL = queries("worker")
_AT_ONCE = 50


def redeliver(settings: Settings, conn: psycopg.Connection[Any], lookups: Lookups) -> Processed:
    """Try the dead letters that are due; one transaction. Transient errors roll it back: no attempt is burned."""
    done = Processed()
    if conn.execute(_SQL["any_due_dead_letter"], prepare=True).fetchone() == (False,):
        return done
    with conn.transaction():
        due = conn.execute(_SQL["due_dead_letters"], (_AT_ONCE,)).fetchall()
        if due:
            conn.execute(_SQL["enter_keys"])
        for row in due:
            done += _try_again(settings, conn, lookups, row)
    return done


def _event(row: tuple[Any, ...]) -> QueuedEvent:
    (
        tenant_id,
        event_id,
        code,
        client_at,
        received_at,
        payload,
        envelope,
        lane,
        batch_id,
        index,
        batch_received_at,
        epoch,
        is_shadow,
    ) = row
    return QueuedEvent(
        tenant_id=tenant_id,
        event_id=event_id,
        type=EventType.of_code(code),
        client_at=client_at,
        received_at=received_at,
        payload=payload,
        envelope=envelope,
        lane=Lane(lane),
        batch_id=batch_id,
        event_index=index,
        batch_received_at=batch_received_at,
        epoch=epoch,
        is_shadow=is_shadow,
    )


def _try_again(settings: Settings, conn: psycopg.Connection[Any], lookups: Lookups, row: tuple[Any, ...]) -> Processed:
    dead_letter_id, attempts, failed_at = row[:3]
    event = _event(row[3:])
    rows, failures = transform_all([event])
    delivered = 0
    if rows:
        enriched = enrich(conn, lookups, rows)
        try:
            with conn.transaction():
                delivered = new_rows(load(conn, enriched, redelivery=True, adds_enriched=failed_at != "load"))
                lookups.forget(keep_traits(conn, enriched))
        except psycopg.Error as error:
            if not is_bad_data(error):
                raise
            failures = [failure(event, "load", error)]
    if failures:
        postpone(conn, settings, dead_letter_id, attempts, failures[0])
        return Processed(claimed=1)
    conn.execute(
        _SQL["resolve_dead_letter"],
        {"delivered": bool(delivered), "tenant_id": event.tenant_id, "dead_letter_id": dead_letter_id},
    )
    return Processed(claimed=1, delivered=delivered, duplicate=1 - delivered)
