"""The private names of Dagster on which the instance and its alerts depend.

An upgrade that changes one of them fails the tests in test_internals.py.
"""

from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._core.storage.tags import BACKFILL_ID_TAG, WILL_RETRY_TAG
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData, serialize_value
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import pg_url_from_config
from sqlalchemy import Engine

AssetGraph = BaseAssetGraph[Any]

__all__ = [
    "BACKFILL_ID_TAG",
    "WILL_RETRY_TAG",
    "AssetGraph",
    "BulkActionStatus",
    "BulkActionsFilter",
    "CheckRunHealthResult",
    "ConfigurableClass",
    "ConfigurableClassData",
    "DagsterPostgresStorage",
    "ExecuteRunArgs",
    "LaunchRunContext",
    "PartitionBackfill",
    "RunLauncher",
    "WorkerStatus",
    "announce_retry",
    "pg_url_from_config",
    "serialize_value",
    "target_of",
    "use_engine",
]


def use_engine(storage: DagsterPostgresStorage, engine: Engine) -> None:
    """Let the three storages of `storage` use `engine` instead of their own, which open a connection a statement."""
    for each in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
        if not isinstance(getattr(each, "_engine", None), Engine):
            raise TypeError(f"{type(each).__name__} has no SQLAlchemy engine named _engine in this version of Dagster")
        each._engine = engine  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]


def target_of(backfill: PartitionBackfill, graph: AssetGraph) -> AssetGraphSubset:
    """The assets and partitions of an asset backfill. DagsterError if `graph` has not all of them."""
    return backfill.get_asset_backfill_data(graph).target_subset  # pyright: ignore[reportUnknownMemberType]


def announce_retry(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Say on a run that is about to be failed whether it will be started again.

    Dagster says so a moment after it failed the run. A backfill that is looked at in that moment ends as failed, and
    then the run is not started again.
    """
    will_retry = auto_reexecution_should_retry_run(instance, run, None)
    instance.add_run_tags(run.run_id, {WILL_RETRY_TAG: str(will_retry).lower()})
