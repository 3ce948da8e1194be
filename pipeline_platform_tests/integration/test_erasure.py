"""What an erasure finds, removes and leaves; what it says of it, in the account too."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pipeline_platform.account.audit import audit
from pipeline_platform.account.funnel import funnel_of
from pipeline_platform.db import connect, queries
from pipeline_platform.erasure.erase import Erasure, erase
from pipeline_platform.event import AcceptedEvent, EventType, Lane, RejectedEvent, TenantId, event_id_of
from pipeline_platform.lookups import Lookups
from pipeline_platform.queue.batches import accept_params, claim
from pipeline_platform.settings import Settings
from pipeline_platform.worker.engine import Engine
from pipeline_platform.worker.redelivery import redeliver
from pipeline_platform_tests.support.everything import places_of

Conn = psycopg.Connection[Any]
SECRET = "planted-7f3a"
_NUL = {"a": "\0"}


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
        row = self.conn.execute(queries("queue")["accept"], accept_params(lane, events, rejected or [])).fetchone()
        assert row
        return row[0]

    def drain(self) -> None:
        for lane in (Lane.LIVE, Lane.OVERFLOW):
            while self._engine.step(lambda conn, lane=lane: claim(conn, lane, 10, 0)).claimed:
                pass

    def redeliver(self) -> None:
        redeliver(self.settings, self.conn, self._lookups)

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


@pytest.fixture
def world(conn: Conn, settings: Settings) -> Iterator[World]:
    lookups = Lookups(settings, settings.redis_url)
    with connect(settings.database_url, "test worker") as working:
        yield World(conn, settings, Engine(settings, working, lookups), lookups)
    lookups.close()


def fill(world: World) -> None:
    """The person's events in every state, other people's beside them in the same batches."""
    padding = {"filler": "x" * 300}
    envelope = json.dumps({"context": {"ip": SECRET}}).encode()
    other = world.event("other-1", userId="bob", properties=padding)
    rejected = RejectedEvent(
        world.tenant, f"r-{SECRET}", "missing_field", f"{SECRET} is odd", f'{{"userId":"{SECRET}","ev'.encode()
    )
    quoted = json.dumps({"userId": SECRET, "type": "nonsense"}).encode()
    world.accept(
        world.event(f"id-{SECRET}", type="identify", userId=SECRET, traits={"email": f"{SECRET}@x.org"}),
        world.event("a", userId=SECRET, anonymousId="phone", properties=padding | {"v": SECRET}, envelope=envelope),
        world.event("a", userId=SECRET, anonymousId="phone", properties=padding),
        other,
        world.event("b", anonymousId="phone", properties={"v": SECRET}),
        world.event("dead-1", userId=SECRET, properties=_NUL | {"v": SECRET}),
        world.event("dead-2", userId="bob", properties=_NUL),
        rejected=[rejected, RejectedEvent(world.tenant, None, "unknown_type", "no such type", quoted)],
    )
    world.drain()
    world.accept(
        world.event("a", userId=SECRET, anonymousId="phone"), world.event("c", userId="bob"), lane=Lane.OVERFLOW
    )
    world.drain()
    world.accept(world.event("flying", userId=SECRET), world.event("d", userId="bob"), other)


def test_nothing_of_the_person_is_left_and_the_account_holds(world: World) -> None:
    fill(world)
    before = world.numbers()
    assert before == {
        "received": 14, "accepted": 12, "rejected": 2, "delivered": 5, "duplicate": 2, "dead_lettered": 2,
        "in_flight": 3,
    }  # fmt: skip
    planted = "".join(world.places())
    for place in ("analytics.events_", "queue.batches_", "decompressed", "queue.dead_letters", "queue.quarantine",
                  "control.traits", "lookup:user"):  # fmt: skip
        assert place in planted
    found = world.erase()
    assert world.places() == {}
    after = world.numbers()
    assert after == before | {"delivered": 2, "dead_lettered": 1, "discarded": 4}
    assert found.outcomes == {"delivered": 3, "duplicate": 2, "dead_lettered": 1, "in_flight": 1}
    world.drain()
    assert world.numbers() == {
        "received": 14, "accepted": 12, "rejected": 2, "delivered": 3, "duplicate": 3, "dead_lettered": 1,
        "discarded": 5,
    }  # fmt: skip
    assert world.rows() == ["c", "d", "other-1"]
    assert world.places() == {}
