"""Backfills that Dagster gave up (status FAILED), for the sensor failed_runs. They may have started no run at all.

Such a backfill is made good when a later one over the same assets and partitions, or more, has succeeded.
"""

from collections.abc import Iterable
from datetime import datetime

import dagster as dg

from pipeline_platform.private_dagster import (
    AssetGraph,
    BulkActionsFilter,
    BulkActionStatus,
    PartitionBackfill,
    target_of,
)

_NEWEST = 200
_ERROR_MAX = 200


def failed_since(instance: dg.DagsterInstance, since: datetime) -> list[PartitionBackfill]:
    """The backfills that failed after `since`."""
    failed = instance.get_backfills(filters=BulkActionsFilter(statuses=[BulkActionStatus.FAILED]), limit=_NEWEST)
    return [each for each in failed if failed_at(each) > since.timestamp()]


def failed_at(backfill: PartitionBackfill) -> float:
    """When it ended, in seconds since 1970."""
    return backfill.backfill_end_timestamp or backfill.backfill_timestamp


def reason(backfill: PartitionBackfill) -> str:
    """The first line of its error."""
    said = backfill.error.message.strip().splitlines() if backfill.error else []
    return said[0][:_ERROR_MAX] if said else "no reason was noted"


def is_made_good(instance: dg.DagsterInstance, backfill_id: str, graph: AssetGraph | None) -> bool:
    """Whether the backfill did not fail, or a later one that covers it has succeeded. graph: of this code location."""
    backfill = instance.get_backfill(backfill_id)
    if backfill is None or backfill.status is not BulkActionStatus.FAILED:
        return True
    succeeded = BulkActionsFilter(statuses=[BulkActionStatus.COMPLETED_SUCCESS])
    later = [
        each
        for each in instance.get_backfills(filters=succeeded, limit=_NEWEST)
        if each.backfill_timestamp > backfill.backfill_timestamp
    ]
    return any(_covers(each, backfill, graph) for each in later)


def _covers(good: PartitionBackfill, failed: PartitionBackfill, graph: AssetGraph | None) -> bool:
    if not failed.is_asset_backfill:
        return good.job_name == failed.job_name and _names(good) >= _names(failed)
    if graph is None or not good.is_asset_backfill:
        return False
    try:
        return (target_of(failed, graph) - target_of(good, graph)).is_empty
    except dg.DagsterError:
        # Their assets are no longer defined like this.
        return False


def _names(backfill: PartitionBackfill) -> set[str]:
    names: Iterable[str] = backfill.partition_names or ()
    return set(names)
