"""What `/metrics` counts of events and of their latency: once each, inclusive, and never backwards."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pipeline_platform.event.types import TenantId
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.metrics.catalogue import LATENCY_BOUNDS_S
from pipeline_platform_tests.support.metrics import Samples, count, events_of, value
from pipeline_platform_tests.support.queue import accept, accept_ids, event
from pipeline_platform_tests.support.workers import Workers, drain

Conn = psycopg.Connection[Any]


def test_counters_never_go_backwards(
    scrape: Callable[[], Samples], conn: Conn, tenant: TenantId, settings: Settings
) -> None:
    """Whatever the account takes back, and whichever hours go."""
    last = scrape()

    def look(**expected: int) -> None:
        nonlocal last
        found = scrape()
        for (name, labels), before in last.items():
            if name.endswith(("_total", "_bucket", "_count", "_sum")):
                assert found[name, labels] >= before, (name, labels)
        assert events_of(found, "acme") | expected == events_of(found, "acme")
        last = found

    accept_ids(conn, tenant, [uuid.uuid4(), uuid.uuid4()])
    look(received=2, accepted=2, delivered=0)
    conn.execute("SELECT account.fold()")
    look(received=2, accepted=2, delivered=0)
    drain(settings)
    look(claimed=2, enriched=2, delivered=2)
    conn.execute("SELECT account.fold()")
    look(claimed=2, enriched=2, delivered=2)
    # As an erasure counts, folded with new work in one go.
    count(conn, tenant, delivered=-1, discarded=1)
    look(delivered=2, discarded=1)
    accept_ids(conn, tenant, [uuid.uuid4()])
    drain(settings)
    look(delivered=3, discarded=1)
    conn.execute("SELECT account.fold()")
    look(delivered=3, discarded=1)
    # The hour goes, as it does after the retention.
    conn.execute(
        "UPDATE queue.hours SET sealed_at = now() - interval '80 hours' WHERE hour = date_trunc('hour', now(), 'UTC')"
    )
    conn.execute("SELECT queue.drop_hour(date_trunc('hour', now(), 'UTC'), '72 hours')")
    look(received=3, accepted=3, delivered=3, discarded=1)


def test_a_dead_letter_counts_once_and_is_gone_when_it_is_delivered(
    scrape: Callable[[], Samples], conn: Conn, tenant: TenantId, workers: Workers
) -> None:
    accept(conn, event(tenant, payload=b"{"))
    workers.drain()
    found = scrape()
    assert value(found, "pipeline_dead_letters", tenant="acme", state="waiting") == 1
    assert value(found, "pipeline_dead_letters", tenant="acme", state="exhausted") == 0
    assert events_of(found, "acme")["dead_lettered"] == 1
    conn.execute(
        "UPDATE queue.dead_letters SET next_attempt_at = now(), payload = %s",
        (json.dumps({"type": "track", "event": "x", "userId": "u", "messageId": "m"}).encode(),),
    )
    assert workers.redeliver().delivered == 1
    found = scrape()
    assert value(found, "pipeline_dead_letters", tenant="acme", state="waiting") == 0
    assert events_of(found, "acme") | {"dead_lettered": 1, "delivered": 1} == events_of(found, "acme")
    # Its way took as long as it took to mend it: no latency.
    assert not [name for name, _ in found if name == "pipeline_delivery_latency_seconds_count"]
    conn.execute("UPDATE queue.dead_letters SET state = 'exhausted', resolved_at = NULL")
    assert value(scrape(), "pipeline_dead_letters", tenant="acme", state="exhausted") == 1


def test_latency_is_a_histogram_of_every_delivery(
    scrape: Callable[[], Samples], conn: Conn, tenant: TenantId, settings: Settings
) -> None:
    accept_ids(conn, tenant, [uuid.uuid4() for _ in range(5)])
    same = [uuid.uuid4()]
    accept_ids(conn, tenant, same)
    accept_ids(conn, tenant, same)
    drain(settings)
    for _ in range(2):
        found = scrape()
        assert value(found, "pipeline_delivery_latency_seconds_count", lane="live") == 6
        assert value(found, "pipeline_delivery_latency_seconds_bucket", lane="live", le="+Inf") == 6
        row = conn.execute(
            "SELECT sum(extract(epoch FROM delivered_at - received_at)), "
            "count(*) FILTER (WHERE delivered_at - received_at <= interval '100 milliseconds') FROM analytics.events"
        ).fetchone()
        assert row
        assert value(found, "pipeline_delivery_latency_seconds_sum", lane="live") == pytest.approx(float(row[0]))
        assert value(found, "pipeline_delivery_latency_seconds_bucket", lane="live", le="0.1") == row[1]
        conn.execute("SELECT account.fold()")


def test_history_has_no_latency(
    scrape: Callable[[], Samples], conn: Conn, tenant: TenantId, settings: Settings
) -> None:
    accept_ids(conn, tenant, [uuid.uuid4()])
    # As an import writes it: each event with a received_at of its own.
    conn.execute("UPDATE queue.batches SET received_ats = ARRAY[received_at]")
    drain(settings)
    found = scrape()
    assert events_of(found, "acme")["delivered"] == 1
    assert not [name for name, _ in found if name == "pipeline_delivery_latency_seconds_count"]


def test_buckets_are_those_of_the_catalogue_and_inclusive(conn: Conn) -> None:
    assert conn.execute("SELECT account.latency_bounds()").fetchone() == (list(LATENCY_BOUNDS_S),)
    for place, bound in enumerate(LATENCY_BOUNDS_S):
        row = conn.execute(
            "SELECT account.latency_bucket(%(b)s), account.latency_bucket(%(b)s + 0.000001)", {"b": bound}
        ).fetchone()
        assert row == (place, place + 1), bound
