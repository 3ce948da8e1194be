"""A platform with one tenant, for tests of erasures: its queue, an engine and the look-ups."""

import json
from collections.abc import Callable
from typing import Any

import psycopg

from pipeline_platform.account.audit import audit
from pipeline_platform.account.funnel import funnel_of
from pipeline_platform.db import connect
from pipeline_platform.erasure.erase import erase
from pipeline_platform.erasure.plan import Erasure
from pipeline_platform.event.types import (
    AcceptedEvent,
    EventType,
    Lane,
    RejectedEvent,
    TenantId,
    event_id_of,
)
from pipeline_platform.lookups import Lookups
from pipeline_platform.queue.batches import accept, claim
from pipeline_platform.settings import Settings
from pipeline_platform.worker.engine import PLANNING, Engine
from pipeline_platform.worker.replay_lane import Replaying
from pipeline_platform.worker.retry_lane import redeliver
from pipeline_platform_tests.support.everything import places_of

Conn = psycopg.Connection[Any]
SECRET = "planted-7f3a"


class World:
    """The queue's front door, an engine, and a tenant."""

    def __init__(self, conn: Conn, settings: Settings, engine: Engine, lookups: Lookups) -> None:
        self.conn, self.settings, self._engine, self._lookups = conn, settings, engine, lookups
        self.tenant = self.add_tenant("acme")

    def add_tenant(self, name: str) -> TenantId:
        row = self.conn.execute(
            "INSERT INTO control.tenants (name) VALUES (%s) RETURNING tenant_id", (name,)
        ).fetchone()
        assert row
        return TenantId(row[0])

    def event(
        self, message_id: str, envelope: bytes = b"", tenant: TenantId | None = None, **body: Any
    ) -> AcceptedEvent:
        body = {"type": "track", "event": "E", "messageId": message_id} | body
        kind = EventType(body["type"])
        payload = json.dumps(body).encode()
        return AcceptedEvent(tenant or self.tenant, event_id_of(message_id), kind, None, payload, envelope)

    def accept(
        self, *events: AcceptedEvent, lane: Lane = Lane.LIVE, rejected: list[RejectedEvent] | None = None
    ) -> int:
        row = accept(self.conn.execute, lane, events, rejected or []).fetchone()
        assert row
        return row[0]

    def drain(self) -> None:
        for lane in (Lane.LIVE, Lane.OVERFLOW):
            while self._engine.step(lambda conn, lane=lane: claim(conn, lane, 10, 0)).claimed:
                pass

    def redeliver(self) -> None:
        redeliver(self.settings, self.conn, self._lookups)

    def replay(self, begin: Callable[[], None]) -> None:
        begin()
        with connect(self.settings.database_url, "test worker work", more=PLANNING) as conn:
            replaying = Replaying(conn, self._lookups)
            while replaying.step():
                pass

    def erase(self, user: str = SECRET) -> Erasure:
        return erase(self.settings, "acme", user, "request 1")

    def numbers(self) -> dict[str, int]:
        """Of the account, which a recount agrees with."""
        found = audit(self.conn)
        assert found.differences == []
        counted = funnel_of(self.conn)
        assert found.numbers == counted.numbers
        assert found.balanced and counted.balanced
        return {name: value for name, value in counted.numbers.totals().items() if value}

    def places(self, value: str = SECRET) -> dict[str, int]:
        return places_of(self.conn, self.settings.redis_url, value)

    def rows(self) -> list[str]:
        return [row[0] for row in self.conn.execute("SELECT message_id FROM account.delivered ORDER BY 1").fetchall()]
