"""Reconciliation, recovery and the watch in Dagster, on a real instance."""

import uuid
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import psycopg
import pytest

from pipeline_platform.defs.hours import key_of
from pipeline_platform.defs.migration.cutover import cutover_watch
from pipeline_platform.defs.migration.reconciliation import hourly_reconciliation
from pipeline_platform.defs.policies import range_tags
from pipeline_platform.defs.resources import Platform
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.materializations import materialized, metadata
from pipeline_platform_tests.support.migration import legacy_has, open_epoch, settle
from pipeline_platform_tests.support.queue import accept_ids
from pipeline_platform_tests.support.tenants import add_tenants
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]
_RANGE_START = "dagster/asset_partition_range_start"


@pytest.fixture
def hour(conn: Conn, settings: Settings) -> datetime:
    """The hour under way, with ten events of a shadow epoch, of which the old pipeline dropped three."""
    (acme,) = add_tenants(conn, "acme")
    open_epoch(conn, "shadow")
    ids = sorted(uuid.uuid4() for _ in range(10))
    accept_ids(conn, acme.tenant_id, ids)
    drain(settings)
    legacy_has(conn, ids[:7])
    settle(conn)
    row = conn.execute("SELECT received_at FROM queue.batches").fetchone()
    assert row
    return row[0].astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _run(
    defs: dg.Definitions, instance: dg.DagsterInstance, job: str, hour: datetime, **config: Any
) -> dg.ExecuteInProcessResult:
    found = defs.resolve_job_def(job)
    if job == "recovery_job":
        run_config = {"ops": {"recover_hours": {"config": {"hours": key_of(hour), **config}}}}
        return found.execute_in_process(instance=instance, run_config=run_config, raise_on_error=False)
    return found.execute_in_process(instance=instance, tags=range_tags([hour]), raise_on_error=False)


def _find(defs: dg.Definitions, instance: dg.DagsterInstance, hour: datetime) -> bool:
    """The asset dropped_events, as its page launches it."""
    job = defs.resolve_implicit_global_asset_job_def()
    asset = [dg.AssetKey("dropped_events")]
    return job.execute_in_process(instance=instance, asset_selection=asset, tags=range_tags([hour])).success


def _verdicts(instance: dg.DagsterInstance, asset: str, check: str) -> list[tuple[str | None, bool]]:
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
    return [(record.partition, record.evaluation.passed) for record in reversed(history) if record.evaluation]


def test_an_hour_is_compared_recovered_and_compared_again(
    conn: Conn, defs: dg.Definitions, instance: dg.DagsterInstance, hour: datetime
) -> None:
    key = key_of(hour)
    assert _run(defs, instance, "reconcile_job", hour).success
    found = metadata(instance, "reconciled_hours", hour)
    assert (found["accepted"], found["matched"], found["dropped"], found["missing"]) == (10, 7, 3, 3)
    assert found["result"].startswith("10 of 10 accepted events compared: 7 matched, 0 mismatched, 3 dropped")
    assert "materialize `dropped_events`" in found["summary"]
    assert _verdicts(instance, "reconciled_hours", "no_drift") == [(key, False), (None, False)]

    assert _find(defs, instance, hour)
    assert metadata(instance, "dropped_events", hour)["dropped"] == 3
    assert metadata(instance, "dropped_events", hour)["result"].startswith("3 events are missing in production")
    assert f'hours: "{key}"' in metadata(instance, "dropped_events", hour)["summary"]
    assert _verdicts(instance, "dropped_events", "nothing_missing") == [(key, False), (None, False)]
    assert _run(defs, instance, "recovery_job", hour, reason="a test").success
    assert materialized(instance, "recovered_events") == []
    assert conn.execute("SELECT count(*) FROM analytics.events").fetchone() == (0,)

    for recovered in (3, 0):
        assert _run(defs, instance, "recovery_job", hour, reason="a test", dry_run=False).success
        assert metadata(instance, "recovered_events", hour)["recovered"] == recovered
        assert metadata(instance, "recovered_events", hour)["recovered_in_all"] == 3
    assert _verdicts(instance, "dropped_events", "nothing_missing")[-2:] == [(key, True), (None, True)]
    assert _verdicts(instance, "reconciled_hours", "no_drift")[-2:] == [(key, True), (None, True)]
    assert metadata(instance, "dropped_events", hour)["dropped"] == 0
    assert conn.execute("SELECT count(*) FROM analytics.production").fetchone() == (10,)

    assert _run(defs, instance, "reconcile_job", hour).success
    assert _verdicts(instance, "reconciled_hours", "no_drift")[-1] == (None, True)


def test_an_hour_that_may_still_change_is_not_recovered(
    conn: Conn, defs: dg.Definitions, instance: dg.DagsterInstance, hour: datetime
) -> None:
    conn.execute("UPDATE control.legacy_target SET settle_s = 7200")
    assert not _run(defs, instance, "recovery_job", hour, reason="a test", dry_run=False).success
    conn.execute("UPDATE control.legacy_target SET settle_s = 0")
    assert not _run(defs, instance, "recovery_job", hour, reason=" ", dry_run=False).success
    assert not _run(defs, instance, "recovery_job", hour, reason="a test", hours="yesterday").success
    assert conn.execute("SELECT count(*) FROM analytics.events").fetchone() == (0,)


def test_the_schedule_asks_for_hours_that_are_over_once(
    conn: Conn, instance: dg.DagsterInstance, platform: Platform, hour: datetime
) -> None:
    def tick() -> list[str]:
        with dg.build_schedule_context(
            instance=instance, scheduled_execution_time=datetime.now(UTC), resources={"platform": platform}
        ) as context:
            found = hourly_reconciliation(context)
        return [] if isinstance(found, dg.SkipReason) else [each.tags[_RANGE_START] for each in found]

    assert tick() == []
    # The hour is over as far as the tables know.
    conn.execute("UPDATE queue.hours SET sealed_at = now()")
    conn.execute("UPDATE control.legacy_target SET settle_s = 0")
    conn.execute("INSERT INTO queue.hours (hour, sealed_at) VALUES (%s - interval '1 hour', now())", (hour,))
    assert tick() == []
    conn.execute("SELECT queue.open_hour(%s - interval '5 hours')", (hour,))
    conn.execute("UPDATE queue.hours SET sealed_at = now()")
    conn.execute("UPDATE queue.batches SET received_at = received_at - interval '5 hours'")
    assert len(tick()) == 1
    conn.execute(
        "INSERT INTO reconcile.windows (window_start, window_end, is_settled, seconds, coverage)"
        " SELECT hour, hour + interval '1 hour', true, 1, '{}' FROM queue.hours"
    )
    assert tick() == []


def test_the_watch_is_a_sensor(conn: Conn, platform: Platform) -> None:
    def tick() -> str:
        return cutover_watch(platform=platform).skip_message or ""

    assert tick() == "nothing to watch in phase legacy_off"
    open_epoch(conn, "platform_primary")
    assert tick().startswith("no anomaly; the watch goes on for")
    (acme,) = add_tenants(conn, "acme")
    conn.execute("INSERT INTO legacy.losses VALUES (%s, gen_random_uuid(), 'mirror', 'x')", (acme.tenant_id,))
    assert tick().startswith("anomalies: mirror_losses")
    alerts = conn.execute("SELECT kind, fingerprint FROM control.alerts").fetchall()
    assert alerts == [("cutover_anomaly", "mirror_losses")]
