"""Writes enriched rows into the analytics tables, by the unique key, with their account, in one statement."""

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg

from pipeline_platform import arrays
from pipeline_platform.db import in_schema, queries
from pipeline_platform.event.types import QueuedEvent
from pipeline_platform.lookups import LookupKey
from pipeline_platform.worker.enrich import Enriched
from pipeline_platform.worker.known_traits import as_of, changes, kept_traits
from pipeline_platform.worker.transform import Row

_SQL = queries("worker")
# True: the rows were accepted in a shadow epoch.
_LOAD: dict[bool, LiteralString] = {
    False: in_schema(_SQL["load"], "analytics"),
    True: in_schema(_SQL["load"], "shadow"),
}


def _firsts(rows: Sequence[Enriched]) -> list[bool]:
    """Which rows are the first of their identity. The others within one load are duplicates."""
    keys = [(item.event.tenant_id, item.event.event_id.int) for item in rows]
    if len(set(keys)) == len(keys):
        return [True] * len(keys)
    seen: set[tuple[int, int]] = set()
    # `add` returns None: a key is first if it was not in the set before.
    return [not (key in seen or seen.add(key)) for key in keys]


def row_columns(rows: Sequence[tuple[QueuedEvent, Row]]) -> dict[str, Any]:
    """The columns of rows before enrichment, as arrays by their names."""
    events = [event for event, _ in rows]
    flat = [row for _, row in rows]
    return {
        "tenant_id": arrays.int4s([event.tenant_id for event in events]),
        "event_id": arrays.uuids([event.event_id for event in events]),
        "batch_id": arrays.int8s([event.batch_id for event in events]),
        "message_id": arrays.texts([row.message_id for row in flat]),
        "type": arrays.texts([row.type.value for row in flat]),
        "name": arrays.texts([row.name for row in flat]),
        "user_id": arrays.texts([row.user_id for row in flat]),
        "anonymous_id": arrays.texts([row.anonymous_id for row in flat]),
        "group_id": arrays.texts([row.group_id for row in flat]),
        "previous_id": arrays.texts([row.previous_id for row in flat]),
        "occurred_at": arrays.timestamps([row.occurred_at for row in flat]),
        "received_at": arrays.timestamps([event.received_at for event in events]),
        "properties": arrays.jsonbs([row.properties for row in flat]),
        "traits": arrays.jsonbs([row.traits for row in flat]),
        "context": arrays.jsonbs([row.context for row in flat]),
        "rest": arrays.jsonbs([row.rest for row in flat]),
    }


def enriched_columns(rows: Sequence[Enriched]) -> dict[str, Any]:
    """All columns of analytics.events that come from the event and the look-ups."""
    return row_columns([(item.event, item.row) for item in rows]) | {
        "tenant_name": arrays.texts([item.tenant_name for item in rows]),
        "tenant_plan": arrays.texts([item.tenant_plan for item in rows]),
        "user_traits": arrays.jsonbs([item.user_traits for item in rows]),
        "group_traits": arrays.jsonbs([item.group_traits for item in rows]),
        "epoch": arrays.int4s([item.event.epoch for item in rows]),
    }


def _columns(rows: Sequence[Enriched], *, redelivery: bool) -> dict[str, Any]:
    return enriched_columns(rows) | {
        # A dead letter's latency is the time until its cause was corrected.
        "is_measured": arrays.bools([not (redelivery or item.event.is_imported) for item in rows]),
        "is_first": arrays.bools(_firsts(rows)),
        "lane": arrays.texts([item.event.lane.value for item in rows]),
        "batch_received_at": arrays.timestamps([item.event.batch_received_at for item in rows]),
    }


def load(
    conn: psycopg.Connection[Any],
    rows: Sequence[Enriched],
    *,
    redelivery: bool = False,
    adds_enriched: bool = True,
) -> list[psycopg.Cursor[Any]]:
    """Write rows and their account, each into the table of its epoch. `new_rows` counts those that were no duplicates.

    The caller holds key_lock (query enter_keys) from an earlier statement. redelivery: the rows were dead letters.
    adds_enriched: whether the rows reach the load for the first time.
    """
    cursors: list[psycopg.Cursor[Any]] = []
    for is_shadow in (False, True):
        if part := [item for item in rows if item.event.is_shadow is is_shadow]:
            params = _columns(part, redelivery=redelivery) | {"redelivery": redelivery, "adds_enriched": adds_enriched}
            cursors.append(conn.execute(_LOAD[is_shadow], params, prepare=True))
    return cursors


def new_rows(cursors: Sequence[psycopg.Cursor[Any]]) -> int:
    """How many rows a load added. In a pipeline, call it after the end."""
    return sum((cursor.fetchone() or (0,))[0] for cursor in cursors)


def keep_traits(conn: psycopg.Connection[Any], rows: Sequence[Enriched]) -> list[LookupKey]:
    """Merge the traits of identify and group events into those of the look-ups. Returns whose traits were written.

    The newest client time wins for each trait, in any order of arrival. A time in the future counts as received_at.
    """
    merged: list[tuple[LookupKey, str, bytes, Enriched]] = []
    for item in (item for item in rows if item.row.traits):
        merged += [(key, name, value, item) for key, name, value in kept_traits(item.event, item.row)]
    if merged:
        conn.execute(
            _SQL["keep_traits"],
            {
                "tenant_id": arrays.int4s([key.tenant_id for key, *_ in merged]),
                "kind": arrays.texts([key.kind for key, *_ in merged]),
                "subject_id": arrays.texts([key.subject_id for key, *_ in merged]),
                "name": arrays.texts([name for _, name, _, _ in merged]),
                "value": arrays.jsonbs([value for _, _, value, _ in merged]),
                "as_of": arrays.timestamps([as_of(item.event, item.row) for *_, item in merged]),
                "event_id": arrays.uuids([item.event.event_id for *_, item in merged]),
            },
        )
    return list(dict.fromkeys(key for key, *_ in merged))


def subjects_of(rows: Sequence[Enriched]) -> list[LookupKey]:
    """The users and groups whose traits the rows change."""
    return list(dict.fromkeys(key for item in rows if (key := changes(item.event, item.row))))
