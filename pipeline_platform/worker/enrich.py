"""What the look-ups add to rows: the tenant's name and plan, the traits of the event's user and group."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import psycopg

from pipeline_platform.event import QueuedEvent
from pipeline_platform.lookups import Key, Lookups
from pipeline_platform.worker.transform import Row


class _Tenant(msgspec.Struct):
    name: str | None = None
    plan: str | None = None


_decode_tenant = msgspec.json.Decoder(_Tenant).decode


@dataclass(slots=True)
class Enriched:
    """A row with what is known around it; traits are JSON text."""

    event: QueuedEvent
    row: Row
    tenant_name: str | None
    tenant_plan: str | None
    user_traits: bytes | None
    group_traits: bytes | None


@functools.lru_cache(maxsize=4_096)
def _tenant_key(tenant_id: int) -> Key:
    return Key("tenant", tenant_id)


def _keys(event: QueuedEvent, row: Row) -> tuple[Key, Key | None, Key | None]:
    return (
        _tenant_key(event.tenant_id),
        Key("user", event.tenant_id, row.user_id) if row.user_id else None,
        Key("group", event.tenant_id, row.group_id) if row.group_id else None,
    )


def enrich(
    conn: psycopg.Connection[Any], lookups: Lookups, transformed: Sequence[tuple[QueuedEvent, Row]]
) -> list[Enriched]:
    """Look up all that the rows need in one go. Raises psycopg errors where PostgreSQL cannot be read."""
    keys = [_keys(event, row) for event, row in transformed]
    known = lookups.get(conn, [key for three in keys for key in three if key])
    tenants = {key: _decode_tenant(value) for key, value in known.items() if key.kind == "tenant" and value}
    nobody = _Tenant()
    return [
        Enriched(
            event,
            row,
            tenants.get(tenant, nobody).name,
            tenants.get(tenant, nobody).plan,
            (known[user] or None) if user else None,
            (known[group] or None) if group else None,
        )
        for (event, row), (tenant, user, group) in zip(transformed, keys, strict=True)
    ]
