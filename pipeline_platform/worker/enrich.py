"""What the look-ups add to rows: the tenant's name and plan, the traits of the event's user and group.

Events in order of acceptance see the traits that earlier events of the same sequence set for a user or group.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import psycopg

from pipeline_platform.dead_letters.store import Failure, failure
from pipeline_platform.errors import is_bad_data
from pipeline_platform.event.types import QueuedEvent
from pipeline_platform.halving import Halves
from pipeline_platform.lookups import LookupKey, Lookups
from pipeline_platform.worker.known_traits import ChangingSubjects, read_after_change
from pipeline_platform.worker.transform import Row


class _Tenant(msgspec.Struct):
    name: str | None = None
    plan: str | None = None


_decode_tenant = msgspec.json.Decoder(_Tenant).decode


@dataclass(slots=True)
class Enriched:
    """A row with the values of the look-ups. Traits are JSON text."""

    event: QueuedEvent
    row: Row
    tenant_name: str | None
    tenant_plan: str | None
    user_traits: bytes | None
    group_traits: bytes | None


@functools.lru_cache(maxsize=4_096)
def _tenant_key(tenant_id: int) -> LookupKey:
    return LookupKey("tenant", tenant_id)


def _keys(event: QueuedEvent, row: Row) -> tuple[LookupKey, LookupKey | None, LookupKey | None]:
    return (
        _tenant_key(event.tenant_id),
        LookupKey("user", event.tenant_id, row.user_id) if row.user_id else None,
        LookupKey("group", event.tenant_id, row.group_id) if row.group_id else None,
    )


def enrich(
    conn: psycopg.Connection[Any],
    lookups: Lookups,
    transformed: Sequence[tuple[QueuedEvent, Row]],
    *,
    cached: bool = True,
    in_order: bool = True,
) -> list[Enriched]:
    """Look up all values for the rows at once. Raises psycopg errors if PostgreSQL cannot be read.

    cached: false if the transaction may have written traits that others must not see yet. in_order: the events are in
    order of acceptance, and will be loaded together or not at all.
    """
    keys = [_keys(event, row) for event, row in transformed]
    apart = read_after_change(transformed, [three[1:] for three in keys]) if in_order else set[LookupKey]()
    changing = ChangingSubjects(conn, lookups, transformed, apart)
    look_up = lookups.get if cached else lookups.read
    known = look_up(conn, [key for three in keys for key in three if key and key not in apart])
    tenants = {key: _decode_tenant(value) for key, value in known.items() if key.kind == "tenant" and value}
    nobody = _Tenant()
    enriched: list[Enriched] = []
    for place, ((event, row), (tenant, user, group)) in enumerate(zip(transformed, keys, strict=True)):
        of = tenants.get(tenant, nobody)
        user_traits = _traits(user, known, changing) if user else None
        group_traits = _traits(group, known, changing) if group else None
        enriched.append(Enriched(event, row, of.name, of.plan, user_traits, group_traits))
        if apart:
            changing.happened(place, event, row)
    return enriched


def _traits(key: LookupKey, known: dict[LookupKey, bytes], changing: ChangingSubjects) -> bytes | None:
    found = known.get(key)
    return (changing.text(key) if found is None else found) or None


def enrich_each(
    conn: psycopg.Connection[Any], lookups: Lookups, transformed: Sequence[tuple[QueuedEvent, Row]]
) -> tuple[list[Enriched], list[Failure]]:
    """The rows of events that belong to no sequence, and the failures of others. Halving finds the bad events."""
    enriched: list[Enriched] = []
    failures: list[Failure] = []
    parts = Halves(transformed)
    for part in parts:
        try:
            with conn.transaction():
                enriched += enrich(conn, lookups, part, cached=False, in_order=False)
        except Exception as error:
            if isinstance(error, psycopg.Error) and not is_bad_data(error):
                raise
            if not parts.split(part):
                failures.append(failure(part[0][0], "enrich", error))
    return enriched, failures
