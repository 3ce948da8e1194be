"""Dagster's private names keep the form on which the instance depends. An upgrade that changes it fails here."""

import inspect

import dagster as dg
import pytest
from sqlalchemy import create_engine

from pipeline_platform.local.instance import internals


class _Without:
    """A storage whose parts have no engine."""

    run_storage = event_log_storage = schedule_storage = object()


def test_the_storages_use_the_engine_that_they_are_given(instance: dg.DagsterInstance) -> None:
    engine = create_engine("postgresql+psycopg2://")
    storage = internals.DagsterPostgresStorage(
        "postgresql+psycopg2://nowhere.invalid/none", should_autocreate_tables=False
    )
    internals.use_engine(storage, engine)
    for each in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
        assert getattr(each, "_engine") is engine  # noqa: B009
    with pytest.raises(TypeError, match="has no SQLAlchemy engine named _engine"):
        internals.use_engine(_Without(), engine)  # pyright: ignore[reportArgumentType]


def test_a_storage_is_made_from_these_arguments() -> None:
    names = list(inspect.signature(internals.DagsterPostgresStorage.__init__).parameters)
    assert names == ["self", "postgres_url", "should_autocreate_tables", "inst_data", "token_provider"]


def test_a_launcher_has_these_methods() -> None:
    overridden = {
        name: list(inspect.signature(getattr(internals.RunLauncher, name)).parameters)
        for name in ("launch_run", "terminate", "check_run_worker_health")
    }
    assert overridden == {
        "launch_run": ["self", "context"],
        "terminate": ["self", "run_id"],
        "check_run_worker_health": ["self", "run"],
    }
    assert {"dagster_run", "workspace"} <= set(internals.LaunchRunContext._fields)
    assert {"RUNNING", "NOT_FOUND", "SUCCESS"} <= set(internals.WorkerStatus.__members__)


def test_a_run_is_executed_from_these_arguments() -> None:
    names = list(inspect.signature(internals.ExecuteRunArgs.__new__).parameters)
    assert names[1:4] == ["job_origin", "run_id", "instance_ref"]


def test_a_backfill_says_what_became_of_it() -> None:
    wanted = {"backfill_id", "status", "error", "partition_names", "backfill_timestamp", "backfill_end_timestamp"}
    assert wanted <= set(internals.PartitionBackfill._fields)
    assert {"FAILED", "COMPLETED_SUCCESS"} <= set(internals.BulkActionStatus.__members__)
    assert internals.BACKFILL_ID_TAG == "dagster/backfill"
    assert internals.WILL_RETRY_TAG == "dagster/will_retry"
