"""The shipped dagster.yaml: it opens on real PostgreSQL with the driver that Dagster works on, and is bounded."""

import dagster as dg
from sqlalchemy.engine import make_url


@dg.asset
def probe() -> None:
    """Anything that is materialized."""


def test_the_web_server_can_use_the_storage_and_an_asset_is_materialized(instance: dg.DagsterInstance) -> None:
    """Held against the driver: with SQLAlchemy's default for postgresql:// the first NOTIFY fails."""
    instance.optimize_for_webserver(statement_timeout=5000, pool_recycle=3600, max_overflow=20)
    storage = instance.event_log_storage
    url = make_url(getattr(storage, "_event_log_storage", storage).postgres_url)
    assert url.get_driver_name() == "psycopg2"

    assert dg.materialize([probe], instance=instance).success
    assert instance.get_latest_materialization_event(probe.key)


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
