"""Failed runs and backfills as alerts: one for each backfill or job, over when all that failed was made good later.

Each tick reads all failures since the last tick with one query, because Dagster's own run-status sensors take five runs
a tick. A run that Dagster retries by itself is not a failure yet. If a failed run will not be repeated, end its alert
with `pipeline-platform alerts resolve`.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import psycopg

from pipeline_platform.db import queries
from pipeline_platform.defs import automation
from pipeline_platform.defs.operations import failed_backfills
from pipeline_platform.defs.policies import OWNED
from pipeline_platform.defs.resources import Platform
from pipeline_platform.private_dagster import BACKFILL_ID_TAG, WILL_RETRY_TAG, AssetGraph, PartitionBackfill

_SQL = queries("alerts")
_RUNS_MAX = 1_000
# Several processes record runs, so one may become visible after a later one.
_OVERLAP = timedelta(minutes=1)
_PARTITION = "dagster/partition"
_FAILED, _SUCCEEDED = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS
_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


@dataclass(frozen=True, slots=True)
class Cursor:
    """The time up to which failures are known, and the runs and backfills seen within the overlap."""

    until: datetime
    seen: frozenset[str]

    @classmethod
    def read(cls, text: str | None, now: datetime) -> "Cursor":
        """Parse a cursor. The first tick begins at `now`."""
        if not text:
            return cls(now, frozenset())
        found = json.loads(text)
        return cls(datetime.fromisoformat(found["until"]), frozenset(found["seen"]))

    def write(self) -> str:
        return json.dumps({"until": self.until.isoformat(), "seen": sorted(self.seen)})


@dg.sensor(  # pyright: ignore[reportUnknownMemberType]
    minimum_interval_seconds=30,
    default_status=automation.SENSORS,
    metadata=OWNED,
    description="Opens an alert for backfills that failed, and for runs that failed and are not started again by "
    "themselves, one a backfill or job, and resolves it when the same has succeeded later. `pipeline-platform alerts "
    "list` shows it.",
)
def failed_runs(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult:
    now = datetime.now(UTC)
    cursor = Cursor.read(context.cursor, now)
    failed = dg.RunsFilter(statuses=[_FAILED], updated_after=cursor.until - _OVERLAP)
    records = [
        record
        for record in context.instance.get_run_records(failed, limit=_RUNS_MAX)
        # A later change of a failed run, such as of its tags, is not a new failure.
        if (record.end_time or now.timestamp()) > (cursor.until - _OVERLAP).timestamp()
        and not _retries(record.dagster_run)
        and is_ours(context, record.dagster_run)
    ]
    backfills = failed_backfills.failed_since(context.instance, cursor.until - _OVERLAP)
    # The first tick reports no earlier failures.
    fresh = [record for record in records if context.cursor and record.dagster_run.run_id not in cursor.seen]
    given_up = [each for each in backfills if context.cursor and each.backfill_id not in cursor.seen]
    graph = context.repository_def.asset_graph if context.repository_def else None
    with platform.connect() as conn:
        opened = [*_open(conn, fresh), *_open_given_up(conn, given_up)]
        resolved = _resolve(conn, context.instance, graph)
    seen = {record.dagster_run.run_id for record in records} | {each.backfill_id for each in backfills}
    said = (
        f"{len(fresh)} runs and {len(given_up)} backfills failed since the last tick "
        f"({', '.join(opened) or 'none'}); {resolved} alerts are over"
    )
    return dg.SensorResult(skip_reason=said, cursor=Cursor(now, frozenset(seen)).write())


def _retries(run: dg.DagsterRun) -> bool:
    return run.tags.get(WILL_RETRY_TAG) == "true"


def is_ours(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> bool:
    """Whether the run belongs to this code location; the instance may have several."""
    here, there = context.code_location_origin, run.remote_job_origin
    if here is None or there is None:
        return True
    return here.location_name == there.repository_origin.code_location_origin.location_name


def _open(conn: psycopg.Connection[Any], records: Iterable[dg.RunRecord]) -> list[str]:
    groups: defaultdict[str, list[dg.RunRecord]] = defaultdict(list)
    for record in records:
        run = record.dagster_run
        backfill = run.tags.get(BACKFILL_ID_TAG)
        groups[f"backfill {backfill}" if backfill else run.job_name].append(record)
    for fingerprint, runs in groups.items():
        last = max(runs, key=lambda record: record.update_timestamp)
        values = {
            "fingerprint": fingerprint,
            "message": f"{last.dagster_run.job_name} failed{_of(last.dagster_run)}: run {last.dagster_run.run_id}",
            "runs": len(runs),
            "since": min(record.update_timestamp for record in runs),
            "run_id": last.dagster_run.run_id,
        }
        conn.execute(_SQL["run_failed"], values)
    return list(groups)


def _open_given_up(conn: psycopg.Connection[Any], backfills: Iterable[PartitionBackfill]) -> list[str]:
    """Open an alert for each backfill that Dagster gave up, or add to the one of its runs."""
    fingerprints: list[str] = []
    for backfill in backfills:
        fingerprints.append(f"backfill {backfill.backfill_id}")
        values = {
            "fingerprint": fingerprints[-1],
            "message": f"backfill {backfill.backfill_id} failed: {failed_backfills.reason(backfill)}",
            "runs": 1,
            "since": datetime.fromtimestamp(failed_backfills.failed_at(backfill), UTC),
            "run_id": backfill.backfill_id,
        }
        conn.execute(_SQL["run_failed"], values)
    return fingerprints


def _resolve(conn: psycopg.Connection[Any], instance: dg.DagsterInstance, graph: AssetGraph | None) -> int:
    """Resolve alerts whose failed runs and backfills have all been made good or deleted."""
    over = [
        alert_id
        for alert_id, fingerprint, opened_at in conn.execute(_SQL["open_run_failures"]).fetchall()
        if _is_over(instance, fingerprint, opened_at - _OVERLAP, graph)
    ]
    return conn.execute(_SQL["runs_succeeded"], {"alert_ids": over}).rowcount if over else 0


def _is_over(instance: dg.DagsterInstance, fingerprint: str, since: datetime, graph: AssetGraph | None) -> bool:
    kind, _, backfill = fingerprint.rpartition(" ")
    is_backfill = kind == "backfill"
    chosen: dict[str, Any] = {"tags": {BACKFILL_ID_TAG: backfill}} if is_backfill else {"job_name": fingerprint}
    failed = [record for record in _records(instance, _FAILED, since, chosen) if not _retries(record.dagster_run)]
    good: list[dg.RunRecord] = []
    for job in {record.dagster_run.job_name for record in failed}:
        good += _records(instance, _SUCCEEDED, since, {"job_name": job})
    if not all(any(_is_made_good(each, by) for by in good) for each in failed):
        return False
    return not is_backfill or failed_backfills.is_made_good(instance, backfill, graph)


def _records(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, since: datetime, chosen: Mapping[str, Any]
) -> list[dg.RunRecord]:
    filters = dg.RunsFilter(statuses=[status], updated_after=since, **chosen)
    return list(instance.get_run_records(filters, limit=_RUNS_MAX))


def _is_made_good(failed: dg.RunRecord, by: dg.RunRecord) -> bool:
    """Whether `by` succeeded after the failure, and repeated the run or is of the same job over its hours or more."""
    if (by.end_time or 0) <= (failed.end_time or 0):
        return False
    run, good = failed.dagster_run, by.dagster_run
    if good.root_run_id and good.root_run_id in (run.run_id, run.root_run_id):
        return True
    first, last = _hours(run.tags)
    good_first, good_last = _hours(good.tags)
    return good.job_name == run.job_name and (
        not first or bool(good_first and good_first <= first and last <= good_last)
    )


def _hours(tags: Mapping[str, str]) -> tuple[str, str]:
    """The first and last partition of a run; empty if it has none. Keys of hours sort by time."""
    one = tags.get(_PARTITION, "")
    return tags.get(_RANGE[0], one), tags.get(_RANGE[1], one)


def _of(run: dg.DagsterRun) -> str:
    first, last = _hours(run.tags)
    return f" for {first}" + (f" to {last}" if last != first else "") if first else ""
