"""A small migration in the tables: its phases, its target, and the old pipeline's rows of what was delivered."""

import uuid
from collections.abc import Iterable
from typing import Any

import psycopg

from pipeline_platform.settings import Settings

Conn = psycopg.Connection[Any]


def legacy_has(conn: Conn, ids: Iterable[uuid.UUID] | None = None) -> None:
    """The old pipeline's rows of what the platform delivered: all, or only these identities, with equal content."""
    conn.execute(
        "INSERT INTO legacy.events (tenant_id, event_id, message_id, type, name, user_id, anonymous_id, occurred_at,"
        " arrived_at, properties, traits, context)"
        " SELECT tenant_id, event_id, message_id, type, name, user_id, anonymous_id, occurred_at, received_at,"
        " properties, traits, context FROM account.delivered WHERE %(ids)s::uuid[] IS NULL OR event_id = ANY(%(ids)s)",
        {"ids": None if ids is None else list(ids)},
    )


def settle(conn: Conn) -> None:
    """Nothing waits for the mirror, and the old pipeline is trusted at once."""
    conn.execute("DELETE FROM queue.mirror")
    conn.execute("UPDATE control.legacy_target SET settle_s = 0")


def point_mirror(settings: Settings, url: str | None, **more: Any) -> None:
    """Configure where the mirror sends."""
    with psycopg.connect(settings.database_url, autocommit=True) as conn:
        conn.execute("UPDATE control.legacy_target SET forward_url = %s, settle_s = 0", (url,))
        for name, value in more.items():
            conn.execute(f"UPDATE control.legacy_target SET {name} = %s", (value,))


def open_epoch(conn: psycopg.Connection[Any], phase: str) -> int:
    """Open an epoch of `phase` at once."""
    row = conn.execute(
        "INSERT INTO control.epochs (epoch, phase) SELECT max(epoch) + 1, %s::control.phase FROM control.epochs"
        " RETURNING epoch",
        (phase,),
    ).fetchone()
    assert row
    return row[0]
