"""`/metrics`: what is served is the catalogue, it is right, and it is bounded."""

import uuid
from collections.abc import Callable
from typing import Any

import httpx
import psycopg
import pytest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text_metrics

from pipeline_platform.db import connect
from pipeline_platform.event.types import TenantId
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.metrics.catalogue import METRICS, STAGES, Source
from pipeline_platform_tests.support.gateway import Start, event
from pipeline_platform_tests.support.metrics import (
    AS_TEXT,
    Samples,
    assert_promtool_approves,
    count,
    events_of,
    samples_of,
    served,
    value,
)
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.queue import accept_ids
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]

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
    accept_ids(conn, tenant, [uuid.uuid4()])
    drain(settings)
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


def test_promtool_approves_of_the_names(settings: Settings, tenant: TenantId) -> None:
    with served(settings) as url:
        assert_promtool_approves(httpx.get(url, headers=AS_TEXT, timeout=30).text)


def test_the_numbers_are_those_of_the_tables(scrape: Callable[[], Samples], conn: Conn, tenant: TenantId) -> None:
    conn.execute(_PLANTED)
    accept_ids(conn, tenant, [uuid.uuid4() for _ in range(3)])
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
    assert value(found, "pipeline_legacy_events_total", stage="lookup", result="proceeded") == 107
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
    monkeypatch.setattr("pipeline_platform.telemetry.metrics.endpoint._FRESH_S", 3600.0)
    with served(settings) as url:
        first = httpx.get(url, timeout=30).text
        add_tenant(conn, "new")
        assert httpx.get(url, timeout=30).text == first


# The processes' own


def test_a_gateway_counts_requests_and_commits(start: Start) -> None:
    gateway = start()
    for _ in range(3):
        assert gateway.batch(event(), event()).status_code == 200
    assert gateway.post("/v1/batch", {"batch": []}, key="wrong").status_code == 401
    url = f"{gateway.process.url}/metrics"

    def counted() -> Samples:
        return samples_of(httpx.get(url, headers=AS_TEXT).text)

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
        accept_ids(conn, tenant, [uuid.uuid4() for _ in range(4)])
        platform.await_drained(conn)

        def counted() -> Samples:
            return samples_of(httpx.get(f"http://127.0.0.1:{platform.port}/metrics", headers=AS_TEXT).text)

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
        assert_promtool_approves(httpx.get(f"http://127.0.0.1:{platform.port}/metrics", headers=AS_TEXT).text)
