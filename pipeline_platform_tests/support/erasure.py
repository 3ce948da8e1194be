"""A platform with one tenant, for tests of erasures: its queue and workers."""

from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from pipeline_platform.account.audit import audit
from pipeline_platform.account.funnel import funnel_of
from pipeline_platform.erasure.erase import Erasure, erase
from pipeline_platform.event.types import AcceptedEvent, EventType, Lane, RejectedEvent, TenantId
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.everything import places_of
from pipeline_platform_tests.support.queue import accept, event
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.workers import Workers

Conn = psycopg.Connection[Any]
SECRET = "planted-7f3a"


class World:
    """The queue's front door, workers, and a tenant."""

    def __init__(self, conn: Conn, settings: Settings, workers: Workers) -> None:
        self.conn, self.settings, self._workers = conn, settings, workers
        self.tenant = self.add_tenant("acme")

    def add_tenant(self, name: str) -> TenantId:
        return add_tenant(self.conn, name).tenant_id

    def event(
        self, message_id: str, *, tenant: TenantId | None = None, type: str = "track", **more: Any
    ) -> AcceptedEvent:
        """An event that names nobody who is not given."""
        return event(tenant or self.tenant, message_id, EventType(type), **{"userId": None} | more)

    def accept(self, *events: AcceptedEvent, lane: Lane = Lane.LIVE, rejected: Sequence[RejectedEvent] = ()) -> int:
        return accept(self.conn, *events, lane=lane, rejected=rejected).batch_id

    def drain(self) -> None:
        self._workers.drain()

    def redeliver(self) -> None:
        self._workers.redeliver()

    def replay(self, begin: Callable[[], None]) -> None:
        begin()
        self._workers.replay()

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
