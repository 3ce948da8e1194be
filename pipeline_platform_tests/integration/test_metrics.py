"""`/metrics`: what is served is the catalogue, it is right, it never goes backwards, and it is bounded."""

import json
import shutil
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text_metrics
from starlette.applications import Starlette

from pipeline_platform.db import connect
from pipeline_platform.event import AcceptedEvent, EventType, TenantId
from pipeline_platform.lookups import Lookups
from pipeline_platform.metrics.catalogue import LATENCY_BOUNDS_S, METRICS, STAGES, Source
from pipeline_platform.metrics.endpoint import metrics_route
from pipeline_platform.queue.batches import batch_params, rejected_params
from pipeline_platform.queue.keeper import open_partitions
from pipeline_platform.services.process import free_port
from pipeline_platform.settings import Settings
from pipeline_platform.worker.redelivery import redeliver
from pipeline_platform_tests.integration.conftest import Start
from pipeline_platform_tests.support.gateway import event
from pipeline_platform_tests.support.migration import accept, deliver_all
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
# Longer than an answer is kept.
_AS_TEXT = {"Accept": "text/plain"}


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The address of an application of our own that mounts the route."""
    port = free_port()
    app = Starlette(routes=[metrics_route(settings)])
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for("the server", lambda: server.started)
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def scrape(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Samples]]:
    """Reads everything anew."""
    monkeypatch.setattr("pipeline_platform.metrics.endpoint._FRESH_S", 0.0)
    monkeypatch.setattr("pipeline_platform.metrics.scrape._SELDOM_S", 0.0)
    with served(settings) as url:
        yield lambda: samples_of(httpx.get(url, headers=_AS_TEXT, timeout=30).text)


def samples_of(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_metrics(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def events_of(samples: Samples, tenant: str) -> dict[str, float]:
    return {stage: value(samples, "pipeline_events_total", tenant=tenant, stage=stage) for stage in STAGES}


@pytest.fixture
def tenant(conn: Conn) -> TenantId:
    open_partitions(conn)
    row = conn.execute("INSERT INTO control.tenants (name) VALUES ('acme') RETURNING tenant_id").fetchone()
    assert row
    return TenantId(row[0])


def count(conn: Conn, tenant: TenantId, **numbers: int) -> None:
    """As a transaction counts in this hour."""
    columns = ", ".join(numbers)
    values = ", ".join(map(str, numbers.values()))
    conn.execute(
        f"INSERT INTO account.deltas (tenant_id, hour, lane, {columns}) "
        f"VALUES ({tenant}, date_trunc('hour', now(), 'UTC'), 'live', {values})".encode()
    )


_PLANTED = """
    INSERT INTO control.alerts (kind, fingerprint, message) VALUES ('drift_found', 'f', 'm'), ('lag_high', 'g', 'm');
    INSERT INTO legacy.stage_counts VALUES (1, date_trunc('hour', now(), 'UTC'), 'lookup', 10, 7, 3),
        (2, date_trunc('hour', now(), 'UTC') - interval '9 days', 'lookup', 100, 100, 0);
    INSERT INTO reconcile.windows (window_start, window_end, is_settled, seconds, coverage)
    VALUES (now() - interval '1 hour', now(), true, 1, '{}');
    INSERT INTO reconcile.results (window_start, window_end, tenant_id, missing, extra, mismatched)
    SELECT window_start, window_end, 1, 5, 2, 1 FROM reconcile.windows;
    INSERT INTO replay.replays (window_start, window_end, planned_events, actor, reason, state)
    SELECT now() - interval '1 hour', now(), 100, 'a', 'r', state::replay.state
    FROM unnest(ARRAY['committed', 'diffing', 'planned']) AS state;
    INSERT INTO replay.chunks (replay_id, chunk, hour, is_sweep, first_batch, last_batch, events, is_done)
    SELECT replay_id, n, date_trunc('hour', now(), 'UTC'), false, n, n, 20, n < 3
    FROM replay.replays, generate_series(0, 4) AS n;
"""


def test_what_is_served_is_the_catalogue(
    scrape: Callable[[], Samples], conn: Conn, tenant: TenantId, settings: Settings
) -> None:
    conn.execute(_PLANTED)
    accept(conn, tenant, [uuid.uuid4()])
    deliver_all(settings)
    catalogue = {series: metric for metric in METRICS if metric.source is Source.DATABASE for series in metric.series}
    found: dict[str, set[str]] = {}
    for name, labels in scrape():
        found.setdefault(name, set()).update({label for label, _ in labels} - {"le"})
    assert found == {series: set(metric.labels) for series, metric in catalogue.items()}


def test_both_formats_are_served_with_the_kinds_of_the_catalogue(settings: Settings, tenant: TenantId) -> None:
    kinds = {metric.name.removesuffix("_total"): metric.kind.value for metric in METRICS}
    with served(settings) as url:
        for accepted, parse in (("text/plain", text_metrics), ("application/openmetrics-text", open_metrics)):
            answer = httpx.get(url, headers={"Accept": accepted}, timeout=30)
            assert answer.headers["content-type"].startswith(accepted)
            families: list[Family] = list(parse(answer.text))
            assert families
            for family in families:
                assert family.type == kinds[family.name], family.name
                assert family.documentation


def assert_promtool_approves(text: str) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: prometheus): the names were NOT judged by it")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_promtool_approves_of_the_names(settings: Settings, tenant: TenantId) -> None:
    with served(settings) as url:
        assert_promtool_approves(httpx.get(url, headers=_AS_TEXT, timeout=30).text)


def test_the_numbers_are_those_of_the_tables(scrape: Callable[[], Samples], conn: Conn, tenant: TenantId) -> None:
    conn.execute(_PLANTED)
    accept(conn, tenant, [uuid.uuid4() for _ in range(3)])
    found = scrape()
    assert value(found, "pipeline_up") == 1
    assert events_of(found, "acme") | {"received": 3, "accepted": 3} == events_of(found, "acme")
    assert value(found, "pipeline_in_flight_events", tenant="acme") == 3
    assert value(found, "pipeline_queue_events", lane="live") == 3
    assert value(found, "pipeline_queue_work", lane="live") == 1
    assert value(found, "pipeline_queue_oldest_age_seconds", lane="live") > 0
    assert value(found, "pipeline_queue_oldest_age_seconds", lane="replay") == 0
    assert value(found, "pipeline_partitions", state="ahead") == 3
    assert value(found, "pipeline_alerts_open", kind="lag_high") == 1
    assert value(found, "pipeline_drift_events", kind="missing") == 5
    assert value(found, "pipeline_old_pipeline_events_total", stage="lookup", result="proceeded") == 107
    assert value(found, "pipeline_replays", state="planned") == 1
    assert value(found, "pipeline_replay_planned_events") == 100
    assert value(found, "pipeline_replay_done_events") == 60
    assert value(found, "pipeline_cutover_phase", phase="legacy_off") == 1
    assert value(found, "pipeline_cutover_phase", phase="shadow") == 0
    assert value(found, "pipeline_account_unbalanced") == 0
    conn.execute("UPDATE control.alerts SET resolved_at = now() WHERE kind = 'lag_high'")
    count(conn, tenant, received=1)
    found = scrape()
    assert ("pipeline_alerts_open", (("kind", "lag_high"),)) not in found
    assert value(found, "pipeline_account_unbalanced") == 1


def test_the_oldest_transaction_is_seen_and_not_the_scrapes_own(
    scrape: Callable[[], Samples], settings: Settings
) -> None:
    assert value(scrape(), "pipeline_oldest_transaction_age_seconds") == 0
    with connect(settings.database_url, "old") as old, old.transaction():
        old.execute("SELECT 1")
        assert value(scrape(), "pipeline_oldest_transaction_age_seconds") > 0


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

    accept(conn, tenant, [uuid.uuid4(), uuid.uuid4()])
    look(received=2, accepted=2, delivered=0)
    conn.execute("SELECT account.fold()")
    look(received=2, accepted=2, delivered=0)
    deliver_all(settings)
    look(claimed=2, enriched=2, delivered=2)
    conn.execute("SELECT account.fold()")
    look(claimed=2, enriched=2, delivered=2)
    # As an erasure counts, folded with new work in one go.
    count(conn, tenant, delivered=-1, discarded=1)
    look(delivered=2, discarded=1)
    accept(conn, tenant, [uuid.uuid4()])
    deliver_all(settings)
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
    scrape: Callable[[], Samples], conn: Conn, tenant: TenantId, settings: Settings
) -> None:
    broken = AcceptedEvent(tenant, uuid.uuid4(), EventType.TRACK, None, b"{")
    conn.execute(
        "SELECT queue.accept('live', %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (*batch_params([broken]), *rejected_params([])),
    )
    deliver_all(settings)
    found = scrape()
    assert value(found, "pipeline_dead_letters", tenant="acme", state="waiting") == 1
    assert value(found, "pipeline_dead_letters", tenant="acme", state="exhausted") == 0
    assert events_of(found, "acme")["dead_lettered"] == 1
    conn.execute(
        "UPDATE queue.dead_letters SET next_attempt_at = now(), payload = %s",
        (json.dumps({"type": "track", "event": "x", "userId": "u", "messageId": "m"}).encode(),),
    )
    lookups = Lookups(settings, settings.redis_url)
    with connect(settings.database_url, "test") as working:
        assert redeliver(settings, working, lookups).delivered == 1
    lookups.close()
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
    accept(conn, tenant, [uuid.uuid4() for _ in range(5)])
    same = [uuid.uuid4()]
    accept(conn, tenant, same)
    accept(conn, tenant, same)
    deliver_all(settings)
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
    accept(conn, tenant, [uuid.uuid4()])
    # As an import writes it: each event with a received_at of its own.
    conn.execute("UPDATE queue.batches SET received_ats = ARRAY[received_at]")
    deliver_all(settings)
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


def test_series_are_tenants_times_stages_and_no_more(scrape: Callable[[], Samples], conn: Conn) -> None:
    alone = len(scrape())
    conn.execute(
        "INSERT INTO control.tenants (name) SELECT 'tenant \"' || n || E'\"\\\\' FROM generate_series(1, 400) AS n"
    )
    found = scrape()
    # Stages, in flight, dead letters waiting and exhausted.
    assert len(found) == alone + 400 * (len(STAGES) + 1 + 2)
    assert value(found, "pipeline_in_flight_events", tenant='tenant "7"\\') == 0


def test_a_scrape_reads_the_same_however_many_hours_there_are(
    scrape: Callable[[], Samples], conn: Conn, tenant: TenantId
) -> None:
    conn.execute(
        "INSERT INTO account.counters (tenant_id, hour, lane, received, accepted, delivered) "
        "SELECT 1, date_trunc('hour', now(), 'UTC') - n * interval '1 hour', 'live', 1, 1, 1 "
        "FROM generate_series(0, 20000) AS n"
    )
    conn.execute("ANALYZE account.counters")
    conn.execute("SELECT pg_stat_reset_single_table_counters('account.counters'::regclass)")
    scrape()

    def read() -> tuple[int, int]:
        row = conn.execute(
            "SELECT seq_scan, idx_scan, seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables "
            "WHERE relid = 'account.counters'::regclass"
        ).fetchone()
        assert row
        return (row[0], row[2]) if row[0] + row[1] else (0, 0)

    scans, rows = wait_for("the statistics", lambda: read() if read()[1] else None)
    assert scans == 0
    assert rows <= 2 * 73


def test_postgresql_away_is_said_and_over_when_it_is_back(
    scrape: Callable[[], Samples], conn: Conn, settings: Settings
) -> None:
    assert value(scrape(), "pipeline_up") == 1
    conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pipeline-platform metrics'"
    )
    found = scrape()
    assert value(found, "pipeline_up") == 0
    assert value(found, "pipeline_disk_free_bytes") > 0
    assert not [name for name, _ in found if name == "pipeline_events_total"]
    assert value(scrape(), "pipeline_up") == 1


def test_who_asks_often_gets_the_same_answer(settings: Settings, conn: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline_platform.metrics.endpoint._FRESH_S", 3600.0)
    with served(settings) as url:
        first = httpx.get(url, timeout=30).text
        conn.execute("INSERT INTO control.tenants (name) VALUES ('new')")
        assert httpx.get(url, timeout=30).text == first


# The processes' own


def test_a_gateway_counts_requests_and_commits(start: Start) -> None:
    gateway = start()
    for _ in range(3):
        assert gateway.batch(event(), event()).status_code == 200
    assert gateway.post("/v1/batch", {"batch": []}, key="wrong").status_code == 401
    url = f"{gateway.process.url}/metrics"

    def counted() -> Samples:
        return samples_of(httpx.get(url, headers=_AS_TEXT).text)

    found = wait_for("the last answer", lambda: len(counted()) > 2 and counted())
    assert value(found, "pipeline_gateway_requests_total", code="200") == 3
    assert value(found, "pipeline_gateway_requests_total", code="401") == 1
    assert value(found, "pipeline_gateway_commit_events_sum") == 6
    assert value(found, "pipeline_gateway_commit_seconds_count") == 3
    # Killed, it goes on counting where it was.
    gateway.process.process.kill()
    gateway.process.exit_code()
    gateway.process.start()
    assert gateway.batch(event()).status_code == 200
    wait_for("the fourth", lambda: value(counted(), "pipeline_gateway_requests_total", code="200") == 4)


def test_a_gateway_serves_what_its_workers_count(settings: Settings, conn: Conn, tenant: TenantId) -> None:
    with Platform(settings) as platform:
        platform.start_gateway()
        platform.start_workers(workers=2)
        accept(conn, tenant, [uuid.uuid4() for _ in range(4)])
        platform.await_drained(conn)

        def counted() -> Samples:
            return samples_of(httpx.get(f"http://127.0.0.1:{platform.port}/metrics", headers=_AS_TEXT).text)

        def delivered() -> float:
            return value(counted(), "pipeline_worker_events_total", outcome="delivered")

        wait_for("the workers' count", lambda: delivered() == 4)
        found = wait_for(
            "the look-ups", lambda: counted() if value(counted(), "pipeline_lookups_total", result="miss") else None
        )
        assert value(found, "pipeline_worker_batches_total", lane="live") == 1
        assert value(found, "pipeline_worker_step_seconds_count") == 1
        catalogue = {series for metric in METRICS if metric.source is Source.PROCESSES for series in metric.series}
        assert {name for name, _ in found} <= catalogue
        assert_promtool_approves(httpx.get(f"http://127.0.0.1:{platform.port}/metrics", headers=_AS_TEXT).text)
