"""How a step over hours reports: each hour when it is done, and an output for every asset once all its hours are.

A step that leaves out an hour of an asset fails and names it. So a green run has recorded all that was launched, and
no later step of the run is skipped in silence.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from pipeline_platform.defs.private_dagster import record_together, silent_output

# A list is recorded together, in few statements.
Event = dg.AssetMaterialization | list[dg.AssetMaterialization] | dg.AssetCheckEvaluation | dg.AssetCheckResult
_HOURS_TAG = "hours"


def hour_record(key: dg.AssetKey, partition: str, metadata: Mapping[str, Any]) -> dg.AssetMaterialization:
    """The record of one hour. metadata: with `result`, one line of plain text that says it all."""
    return dg.AssetMaterialization(key, partition=partition, description=str(metadata["result"]), metadata=metadata)


def over_hours(context: dg.AssetExecutionContext, events: Iterable[Event]) -> Iterator[Any]:
    """Pass on the events of a step, check that no hour is missing, and give each selected asset its output."""
    name_hours(context)
    done = recorded(context)
    for event in events:
        if isinstance(event, list):
            record_together(context, event)
            done |= {(each.asset_key, each.partition or "") for each in event}
        else:
            if isinstance(event, dg.AssetMaterialization):
                done.add((event.asset_key, event.partition or ""))
            yield event
    for key in _in_order(context):
        missing = [hour for hour in context.partition_keys if (key, hour) not in done]
        if missing:
            raise dg.Failure(
                f"{key.to_user_string()} was not recorded for {', '.join(missing)}: this is a bug of the step. "
                "Report it; nothing that follows was started",
                allow_retries=False,
            )
        yield silent_output(key)


def recorded(context: dg.AssetExecutionContext) -> set[tuple[dg.AssetKey, str]]:
    """What an earlier run of this step recorded. A retry continues after it and records nothing twice."""
    if context.retry_number == 0:
        return set()
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    records = context.instance.get_records_for_run(context.run.run_id, of_type=kind)
    found: set[tuple[dg.AssetKey, str]] = set()
    for record in records.records:
        materialization = record.event_log_entry.asset_materialization
        if materialization and materialization.partition:
            found.add((materialization.asset_key, materialization.partition))
    return found


def name_hours(context: dg.AssetExecutionContext) -> None:
    """Show the hours of the run in the list of runs, which hides Dagster's own tags of a range."""
    if context.has_partition_key_range or context.has_partition_key:
        keys = context.partition_keys
        context.instance.add_run_tags(context.run.run_id, {_HOURS_TAG: hours_text(keys)})


def hours_text(keys: Sequence[str]) -> str:
    """Hours as the dialog for partitions writes them: one, or [FIRST...LAST]."""
    return keys[0] if len(keys) == 1 else f"[{keys[0]}...{keys[-1]}]"


def _in_order(context: dg.AssetExecutionContext) -> list[dg.AssetKey]:
    """The selected assets, what others are made of first."""
    return [key for key in (spec.key for spec in context.assets_def.specs) if key in context.selected_asset_keys]
