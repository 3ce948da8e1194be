"""What a Dagster instance has recorded of the assets' hours."""

from datetime import datetime
from typing import Any

import dagster as dg

from pipeline_platform.defs.hours import key_of


def materialized(instance: dg.DagsterInstance, asset: str) -> list[str]:
    """The partition of every materialization there is, in order."""
    records = instance.fetch_materializations(dg.AssetKey(asset), limit=1000, ascending=True).records
    return [record.partition_key or "" for record in records]


def metadata(instance: dg.DagsterInstance, asset: str, hour: datetime) -> dict[str, Any]:
    """What the newest materialization of an hour says, by name."""
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[key_of(hour)]), limit=1
    ).records[0]
    assert found.asset_materialization
    found_metadata = found.asset_materialization.metadata.items()
    return {
        name: value.records if isinstance(value, dg.TableMetadataValue) else value.value
        for name, value in found_metadata
    }
