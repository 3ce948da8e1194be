"""Dagster's private names keep the form on which the instance depends. An upgrade that changes it fails here."""

import inspect

import dagster as dg
import pytest
from sqlalchemy import create_engine

from pipeline_platform import private_dagster


class _Without:
    """A storage whose parts have no engine."""

    run_storage = event_log_storage = schedule_storage = object()


def test_the_storages_use_the_engine_that_they_are_given(instance: dg.DagsterInstance) -> None:
    engine = create_engine("postgresql+psycopg2://")
    storage = private_dagster.DagsterPostgresStorage(
        "postgresql+psycopg2://nowhere.invalid/none", should_autocreate_tables=False
    )
    private_dagster.use_engine(storage, engine)
    for each in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
        assert getattr(each, "_engine") is engine  # noqa: B009
    with pytest.raises(TypeError, match="has no SQLAlchemy engine named _engine"):
        private_dagster.use_engine(_Without(), engine)  # pyright: ignore[reportArgumentType]


def test_a_storage_is_made_from_these_arguments() -> None:
    names = list(inspect.signature(private_dagster.DagsterPostgresStorage.__init__).parameters)
    assert names == ["self", "postgres_url", "should_autocreate_tables", "inst_data", "token_provider"]


def test_a_launcher_has_these_methods() -> None:
    overridden = {
        name: list(inspect.signature(getattr(private_dagster.RunLauncher, name)).parameters)
        for name in ("launch_run", "terminate", "check_run_worker_health")
    }
    assert overridden == {
        "launch_run": ["self", "context"],
        "terminate": ["self", "run_id"],
        "check_run_worker_health": ["self", "run"],
    }
    assert {"dagster_run", "workspace"} <= set(private_dagster.LaunchRunContext._fields)
    assert {"RUNNING", "NOT_FOUND", "SUCCESS"} <= set(private_dagster.WorkerStatus.__members__)


def test_a_run_is_executed_from_these_arguments() -> None:
    names = list(inspect.signature(private_dagster.ExecuteRunArgs.__new__).parameters)
    assert names[1:4] == ["job_origin", "run_id", "instance_ref"]


def test_a_backfill_says_what_became_of_it() -> None:
    wanted = {"backfill_id", "status", "error", "partition_names", "backfill_timestamp", "backfill_end_timestamp"}
    assert wanted <= set(private_dagster.PartitionBackfill._fields)
    assert {"FAILED", "COMPLETED_SUCCESS"} <= set(private_dagster.BulkActionStatus.__members__)
    assert private_dagster.BACKFILL_ID_TAG == "dagster/backfill"
    assert private_dagster.WILL_RETRY_TAG == "dagster/will_retry"
