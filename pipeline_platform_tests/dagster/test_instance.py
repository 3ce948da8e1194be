"""The shipped dagster.yaml: it opens on real PostgreSQL with the driver that Dagster works on, and is bounded."""

import os
from typing import Any

import dagster as dg
import psycopg
from sqlalchemy.engine import make_url

from pipeline_platform.local.instance.launcher import ProcessRunLauncher


@dg.asset
def probe() -> None:
    """Anything that is materialized."""


def test_the_storage_works_with_its_driver_and_an_asset_is_materialized(instance: dg.DagsterInstance) -> None:
    """Held against the driver: with SQLAlchemy's default for postgresql:// the first NOTIFY fails."""
    assert make_url(os.environ["DAGSTER_PG_URL"]).get_driver_name() == "psycopg2"
    assert dg.materialize([probe], instance=instance).success
    assert instance.get_latest_materialization_event(probe.key)


def test_all_instances_of_a_process_share_a_few_connections(
    instance: dg.DagsterInstance, storage: psycopg.Connection[Any]
) -> None:
    """Dagster's own storage opens a connection for each statement, and three for each instance."""

    def opened() -> int:
        storage.execute("SELECT pg_stat_clear_snapshot()")
        row = storage.execute("SELECT sessions FROM pg_stat_database WHERE datname = current_database()").fetchone()
        assert row
        return row[0]

    assert dg.materialize([probe], instance=instance).success
    before = opened()
    for _ in range(20):
        with dg.DagsterInstance.from_ref(instance.get_ref()) as another:
            another.get_runs(limit=1)
            another.event_log_storage.get_event_records(dg.EventRecordsFilter(dg.DagsterEventType.RUN_SUCCESS), limit=1)
            another.all_instigator_state()
    assert opened() - before <= 1


def test_a_connection_that_the_server_ended_costs_no_statement(
    instance: dg.DagsterInstance, storage: psycopg.Connection[Any]
) -> None:
    instance.get_runs(limit=1)
    storage.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert instance.get_runs(limit=1) == []


def test_runs_are_processes_whose_life_is_watched(instance: dg.DagsterInstance) -> None:
    assert isinstance(instance.run_launcher, ProcessRunLauncher)
    assert instance.run_launcher.supports_check_run_worker_health
    settings = instance.get_settings("run_monitoring")
    assert instance.run_monitoring_enabled and settings["poll_interval_seconds"] <= 10


def test_what_is_left_behind_is_bounded(instance: dg.DagsterInstance) -> None:
    monitoring = instance.get_settings("run_monitoring")
    assert instance.run_monitoring_enabled
    assert monitoring["max_runtime_seconds"] > 0
    assert monitoring["free_slots_after_run_end_seconds"] > 0
    assert instance.run_retries_enabled
    assert not instance.get_settings("run_retries")["retry_on_asset_or_op_failure"]
    assert not instance.telemetry_enabled
    assert not instance.nux_enabled


def test_a_backfill_leaves_room_for_the_hourly_runs(instance: dg.DagsterInstance) -> None:
    runs = instance.get_concurrency_config().run_queue_config
    assert runs
    (limit,) = runs.tag_concurrency_limits
    assert limit["key"] == "dagster/backfill"
    assert 0 < limit["limit"] < runs.max_concurrent_runs
