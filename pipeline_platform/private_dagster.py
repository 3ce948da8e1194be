"""What is used of Dagster and is private or in beta, all of it in this file.

Tests run each function against a real instance and compare the form of each class, so that an upgrade which changes one
of them fails there and not in somebody's UI: `pipeline_platform_tests/dagster/test_private_dagster.py` and
`test_private_classes.py`.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dagster._core.events import DagsterEvent, DagsterEventBatchMetadata, generate_event_batch_id
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorTick,
    InstigatorType,
    SensorInstigatorData,
    TickStatus,
)
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.tags import BACKFILL_ID_TAG, WILL_RETRY_TAG
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData, serialize_value
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import pg_url_from_config
from sqlalchemy import Engine, and_, func, select

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
    "InstigatorState",
    "InstigatorTick",
    "InstigatorType",
    "LaunchRunContext",
    "PartitionBackfill",
    "RunLauncher",
    "SensorInstigatorData",
    "TickStatus",
    "WorkerStatus",
    "announce_retry",
    "log_verdict",
    "pg_url_from_config",
    "record_together",
    "red_partitions",
    "same_partition_if_any",
    "serialize_value",
    "silent_output",
    "storage_url",
    "target_of",
    "use_engine",
    "with_code_references",
]


def same_partition_if_any() -> dg.TimeWindowPartitionMapping:
    """Each partition on the one of the same time, or on none where the other asset has no such partition yet."""
    with warnings.catch_warnings():
        # A beta parameter, which warns at every start.
        warnings.simplefilter("ignore")
        return dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)


def storage_url(instance: dg.DagsterInstance) -> str:
    """SQLAlchemy's URL of the instance's database. The storage is DagsterPostgresStorage."""
    storage: Any = instance.event_log_storage
    return storage.postgres_url


def with_code_references(assets: Sequence[Any]) -> Sequence[Any]:
    """The assets, each with the place of its code, which its page shows."""
    with warnings.catch_warnings():
        # In beta, which warns at every start.
        warnings.simplefilter("ignore")
        return dg.with_source_code_references(assets)


def silent_output(key: dg.AssetKey) -> dg.MaterializeResult[Any]:
    """The output of an asset whose partitions were recorded one by one.

    Steps that depend on the asset run only after an output. Without this mark, the output would record every partition
    of the run once more.
    """
    return dg.MaterializeResult(asset_key=key, metadata={SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True})


def record_together(context: dg.AssetExecutionContext, found: Sequence[dg.AssetMaterialization]) -> None:
    """Record many partitions. Where DAGSTER_EVENT_BATCH_SIZE is above 0, they are stored in statements of that size."""
    step = context.op_execution_context.get_step_execution_context()
    batch = generate_event_batch_id()
    for place, each in enumerate(found, 1):
        DagsterEvent.asset_materialization(step, each, DagsterEventBatchMetadata(batch, place == len(found)))


def log_verdict(context: dg.OpExecutionContext, verdict: dg.AssetCheckEvaluation) -> None:
    """Record a verdict from an op. The parameter of `log_event` does not name this kind of event."""
    context.log_event(verdict)  # pyright: ignore[reportArgumentType]


def red_partitions(instance: dg.DagsterInstance, check: dg.AssetCheckKey) -> Iterator[str]:
    """The partitions whose newest evaluation failed. One that is planned, or was and never came, is none."""
    rows = AssetCheckExecutionsTable.c
    judged = [AssetCheckExecutionRecordStatus.SUCCEEDED.value, AssetCheckExecutionRecordStatus.FAILED.value]
    is_ours = and_(rows.asset_key == check.asset_key.to_string(), rows.check_name == check.name)
    newest = select(func.max(rows.id)).where(is_ours, rows.partition.is_not(None), rows.execution_status.in_(judged))
    red = select(rows.partition).where(
        rows.id.in_(newest.group_by(rows.partition)),
        rows.execution_status == AssetCheckExecutionRecordStatus.FAILED.value,
    )
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    with storage.index_connection() as conn:
        yield from conn.execute(red).scalars()


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
