"""A small migration in the tables: events accepted and delivered in a shadow epoch, and the old pipeline's rows."""

import json
import uuid
from collections.abc import Iterable
from typing import Any

import psycopg

from pipeline_platform.db import connect
from pipeline_platform.event.types import AcceptedEvent, EventType, Lane, TenantId
from pipeline_platform.lookups import Lookups
from pipeline_platform.queue import batches
from pipeline_platform.queue.batches import claim
from pipeline_platform.settings import Settings
from pipeline_platform.worker.engine import PLANNING, Engine

Conn = psycopg.Connection[Any]


def accept(conn: Conn, tenant_id: int, ids: Iterable[uuid.UUID], **properties: Any) -> None:
    """One batch of track events with these identities."""
    events = [
        AcceptedEvent(
            TenantId(tenant_id), event_id, EventType.TRACK, None,
            json.dumps({"type": "track", "event": "Clicked", "messageId": str(event_id), "userId": "u1",
                        "properties": {"n": place, **properties}}).encode(),
        )
        for place, event_id in enumerate(ids)
    ]  # fmt: skip
    batches.accept(conn.execute, Lane.LIVE, events, [])


def deliver_all(settings: Settings) -> None:
    """Process the live lane to its end, as a worker does."""
    lookups = Lookups(settings, settings.redis_url)
    with connect(settings.database_url, "test", more=PLANNING) as conn:
        engine = Engine(settings, conn, lookups)
        while engine.step(lambda conn: claim(conn, Lane.LIVE, 100, 0)).claimed:
            pass
    lookups.close()


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
