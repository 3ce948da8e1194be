"""Promise: what an erased person had sent is nowhere any more, and the account is exact before, during and after."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg
import zstandard

from pipeline_platform.account.audit import audit
from pipeline_platform.erasure.erase import erase
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.client import Client
from pipeline_platform_tests.support.everything import places_of
from pipeline_platform_tests.support.ledger import Ledger, Verdict
from pipeline_platform_tests.support.load import Load
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.tenants import Tenant, add_tenants
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]
# Some 150 events a second of one person: the machine is shared.
_PAUSE_S = 0.02
Report = Callable[[Verdict], None]


class Visitor:
    """One person who keeps sending, known by a user id and by a device."""

    def __init__(self, port: int, tenant: Tenant, name: str) -> None:
        self._client = Client(port, tenant.write_key)
        self._name = name
        self._enough = threading.Event()
        self.sent = 0

    def run(self) -> None:
        while not self._enough.is_set():
            self._client.send([self._event() for _ in range(1 + self.sent % 4)], context={"ip": self._name})
            self._enough.wait(_PAUSE_S)

    def _event(self) -> dict[str, Any]:
        self.sent += 1
        who = {"anonymousId": f"device-{self._name}"} if self.sent % 3 == 0 else {"userId": self._name}
        if self.sent % 5 == 0:
            who = {"userId": self._name, "anonymousId": f"device-{self._name}"}
        body: dict[str, Any] = {"messageId": f"{self._name}-{self.sent}", "properties": {"v": self._name}}
        if self.sent % 7 == 0:
            return body | {"userId": self._name, "type": "identify", "traits": {"email": self._name}}
        # Every eleventh is rejected, and quarantined.
        more = {"odd": "\0"} if self.sent % 11 == 0 else {}
        return body | who | {"type": "track", "event": "Seen", "properties": {"v": self._name} | more}

    @contextmanager
    def sending(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self._enough.set()
            thread.join()
            self._client.close()


def left_before(conn: Conn, name: str, erased_at: datetime) -> list[str]:
    """Where something is left of what was received before."""
    found: list[str] = []
    for table in ("analytics.events", "queue.quarantine"):
        query = f"SELECT count(*) FROM {table} AS t WHERE t.received_at < %s AND to_jsonb(t)::text LIKE %s"
        if conn.execute(query.encode(), (erased_at, f"%{name}%")).fetchone() != (0,):
            found.append(table)
    kept = conn.execute("SELECT payload FROM queue.quarantine WHERE received_at < %s", (erased_at,)).fetchall()
    found += ["quarantined bytes" for (payload,) in kept if name.encode() in payload]
    batches = conn.execute("SELECT codec, payload, envelopes FROM queue.batches WHERE received_at < %s", (erased_at,))
    for codec, payload, envelopes in batches.fetchall():
        body = zstandard.ZstdDecompressor().decompress(payload) if codec == "zstd" else payload
        if any(name.encode() in part for part in (body, *(envelopes or ()))):
            found.append("batch")
    return found


def delivered(conn: Conn, name: str, since: datetime) -> int:
    row = conn.execute(
        "SELECT count(*) FROM analytics.events WHERE user_id = %s AND received_at >= %s", (name, since)
    ).fetchone()
    assert row
    return row[0]


def test_while_the_person_sends_others_send_and_workers_are_killed(
    settings: Settings, conn: Conn, seed: int, report: Report
) -> None:
    rng, ledger, name = random.Random(seed), Ledger(seed), f"planted-{seed}"
    tenants = add_tenants(conn, "a", "b")
    with Platform(settings) as platform:
        platform.start_workers()
        platform.start_gateway()
        visitor = Visitor(platform.port, tenants[0], name)
        with Load(platform.port, ledger, tenants, senders=3) as load, visitor.sending():
            for _ in range(3):
                load.await_acknowledged(200)
                platform.kill_a_worker(rng)
                found = erase(settings, "a", name, "request 1")
                assert found.erased_at
                assert left_before(conn, name, found.erased_at) == [], f"seed {seed}"
                assert audit(conn).differences == [], f"seed {seed}"
                wait_for("the person to be accepted again", lambda at=found.erased_at: delivered(conn, name, at))
            load.await_acknowledged(100)
        platform.await_drained(conn)
        assert audit(conn).differences == [], f"seed {seed}"
        erase(settings, "a", name, "request 2")
        platform.await_drained(conn)
    assert places_of(conn, settings.redis_url, name) == {}, f"seed {seed}"
    report(ledger.judge(conn))
