"""Promise: an event counts once, however often, at once or late, with or without its time it is sent."""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.client import Client, Event
from pipeline_platform_tests.support.ledger import Ledger, account_faults
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.tenants import add_tenants

Conn = psycopg.Connection[Any]


def rows(conn: Conn) -> tuple[int, ...]:
    row = conn.execute(
        "SELECT sum(accepted)::int, sum(delivered)::int, sum(duplicate)::int, (SELECT count(*) FROM analytics.events)"
        " FROM account.funnel"
    ).fetchone()
    assert row
    return tuple(row)


def variants(batch: list[Event], rng: random.Random) -> list[list[Event]]:
    """The same events: again, in another order, without a time, and with another time."""
    shuffled = rng.sample(batch, len(batch))
    timeless = [{name: value for name, value in event.items() if name != "timestamp"} for event in batch]
    retimed = [event | {"timestamp": "2001-02-03T04:05:06Z"} for event in batch]
    return [batch, shuffled, timeless, retimed]


def test_the_same_batch_16_times_at_once_and_again_after_its_keys_were_closed(
    settings: Settings, conn: Conn, seed: int
) -> None:
    rng, ledger = random.Random(seed), Ledger(seed)
    (tenant,) = add_tenants(conn, "a")
    batch = [ledger.event(tenant, rng) for _ in range(50)]
    requests = [request for _ in range(4) for request in variants(batch, rng)]

    def send(request: list[Event]) -> int:
        client = Client(platform.port, tenant.write_key)
        try:
            return client.send(request).accepted
        finally:
            client.close()

    with Platform(settings) as platform, ThreadPoolExecutor(16) as senders:
        platform.start_workers()
        platform.start_gateway()
        assert sum(senders.map(send, requests)) == 16 * 50
        platform.await_drained(conn)
        assert rows(conn) == (800, 50, 750, 50), f"seed {seed}"
        for _ in range(3):
            # While the workers run: closing a generation of keys waits for whoever writes into it.
            sending = [senders.submit(send, request) for request in variants(batch, rng)]
            assert conn.execute("SELECT analytics.rotate_keys('0', '72 hours')").fetchone() == (True,)
            assert sum(each.result() for each in sending) == 4 * 50
        platform.await_drained(conn)
    assert rows(conn) == (1400, 50, 1350, 50), f"seed {seed}"
    assert account_faults(conn) == [], f"seed {seed}"
