"""prune_runs: deletes Dagster's finished runs and their event logs, which Dagster would keep forever.

An asset's materializations are rows of a run's event log, so the UI loses them with the run. Therefore a run is kept if
it holds the newest record of an asset, or of a partition whose hours are kept. For older hours the platform's own
tables have the information (their bars stay green from Dagster's cache, without records behind them). Dagster stores
verdicts of checks apart from runs; they are kept. Unfinished runs are never touched. The run itself is deleted last, so
the next execution continues after an interruption.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from pipeline_platform.db import queries
from pipeline_platform.defs import automation
from pipeline_platform.defs.customers.daily_report import DAYS
from pipeline_platform.defs.hours import HOUR, HOURS
from pipeline_platform.defs.launchpad import prefilled
from pipeline_platform.defs.policies import OWNED
from pipeline_platform.defs.resources import Platform

_SQL = queries("control_plane")
_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_PORTION = 100
_LENGTHS = {HOURS.fmt: HOUR, DAYS.fmt: timedelta(days=1)}


@dataclass(slots=True)
class Pruned:
    """deleted: runs, or in a dry run those that would be. kept: old runs that hold the newest record of something."""

    deleted: int = 0
    kept: int = 0
    is_done: bool = False


def prune(
    instance: dg.DagsterInstance, older_than: datetime, kept_since: datetime, *, runs_max: int, dry_run: bool
) -> Pruned:
    """Delete finished runs that last changed before `older_than`, the oldest first, at most `runs_max` of them.

    kept_since: partitions that end later keep their records. is_done: no run is left that could be deleted.
    """
    filters = dg.RunsFilter(statuses=_FINISHED, updated_before=older_than)
    pruned = Pruned()
    # The last run that still exists: a cursor on a deleted run finds nothing.
    cursor: str | None = None
    while page := instance.get_run_records(filters, limit=_PORTION, ascending=True, cursor=cursor):
        for run_id in (record.dagster_run.run_id for record in page):
            if pruned.deleted == runs_max:
                return pruned
            if _holds_newest(instance, run_id, kept_since):
                pruned.kept += 1
                cursor = run_id
                continue
            pruned.deleted += 1
            if dry_run:
                cursor = run_id
            else:
                _delete(instance, run_id)
    pruned.is_done = True
    return pruned


def _holds_newest(instance: dg.DagsterInstance, run_id: str, kept_since: datetime) -> bool:
    """Whether the UI would lose, with this run, the newest record of an asset or of a kept partition."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    mine: dict[dg.AssetKey, dict[str, int]] = {}
    for record in records:
        found = record.event_log_entry.asset_materialization
        if found is None:
            continue
        if found.partition is None:
            newest = instance.get_latest_materialization_event(found.asset_key)
            if newest is not None and newest.run_id == run_id:
                return True
        elif _is_kept(found.partition, kept_since):
            mine.setdefault(found.asset_key, {})[found.partition] = record.storage_id
    return any(_has_newest_of(instance, key, partitions) for key, partitions in mine.items())


def _has_newest_of(instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Mapping[str, int]) -> bool:
    newest = instance.get_latest_storage_id_by_partition(
        key, dg.DagsterEventType.ASSET_MATERIALIZATION, set(partitions)
    )
    return any(newest.get(partition, 0) <= storage_id for partition, storage_id in partitions.items())


def _is_kept(partition: str, kept_since: datetime) -> bool:
    for form, length in _LENGTHS.items():
        try:
            return datetime.strptime(partition, form).replace(tzinfo=UTC) + length > kept_since
        except ValueError:
            continue
    # The partition's time is unknown, so it cannot be judged to be past.
    return True


def _delete(instance: dg.DagsterInstance, run_id: str) -> None:
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    # Delete events before the run: events without a run would never be found again.
    instance.event_log_storage.delete_events(run_id)
    instance.delete_run(run_id)


class PruneConfig(dg.Config):
    """What to delete."""

    dry_run: bool = Field(default=True, description="Only say how many runs it would delete.")
    runs_max: int = Field(
        default=2_000,
        ge=1,
        description="Largest number of runs deleted at once; the next run of the schedule deletes more.",
    )


@dg.op(description="Deletes finished runs that are older than PIPELINE_DAGSTER_RUNS_D days, with their event logs.")
def delete_finished_runs(context: dg.OpExecutionContext, platform: Platform, config: PruneConfig) -> None:
    older_than = datetime.now(UTC) - timedelta(days=platform.settings().dagster_runs_d)
    with platform.connect() as conn:
        (oldest,) = conn.execute(_SQL["oldest_kept_hour"]).fetchone() or (None,)
    kept_since = min(older_than, oldest or older_than)
    done = prune(context.instance, older_than, kept_since, runs_max=config.runs_max, dry_run=config.dry_run)
    context.add_output_metadata(
        {
            "deleted_runs": 0 if config.dry_run else done.deleted,
            "kept_runs": done.kept,
            "older_than": dg.MetadataValue.timestamp(older_than),
            "done": done.is_done,
        }
    )
    verb = "would be deleted" if config.dry_run else "were deleted"
    context.log.info(
        f"{done.deleted:,} runs {verb}; {done.kept:,} older than that stay, with the newest record of something"
    )


@dg.job(  # pyright: ignore[reportUnknownMemberType]
    description="Deletes Dagster's own finished runs and their event logs. By hand a dry run; with `dry_run: false` it "
    "does it. Never what has not finished, nor the newest record of an asset or of a kept hour.",
    config=prefilled("delete_finished_runs", PruneConfig),
    executor_def=dg.in_process_executor,
    metadata=OWNED,
)
def prune_runs_job() -> None:
    delete_finished_runs()


prune_runs = dg.ScheduleDefinition(
    name="prune_runs",
    job=prune_runs_job,
    cron_schedule="50 3 * * *",
    execution_timezone="UTC",
    run_config={"ops": {"delete_finished_runs": {"config": {"dry_run": False}}}},
    default_status=automation.SCHEDULES,
    description="Deletes finished runs older than PIPELINE_DAGSTER_RUNS_D days, once a day.",
    metadata=OWNED,
)
