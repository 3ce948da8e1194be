"""Failed runs as alerts: one for each backfill or job, over when every failed run has been repeated successfully.

Each tick reads all failures since the last tick with one query, because Dagster's own run-status sensors take five runs
a tick. A run that Dagster retries by itself is not a failure yet. If a failed run will not be repeated, end its alert
with `pipeline-platform alerts resolve`.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import psycopg

from pipeline_platform.db import queries
from pipeline_platform.defs.policies import OWNED
from pipeline_platform.defs.private_dagster import WILL_RETRY_TAG
from pipeline_platform.defs.resources import Platform

_SQL = queries("alerts")
_RUNS_MAX = 1_000
# Several processes record runs, so one may become visible after a later one.
_OVERLAP = timedelta(minutes=1)
_BACKFILL = "dagster/backfill"
_PARTITION = "dagster/partition"
_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


@dataclass(frozen=True, slots=True)
class Cursor:
    """The time up to which failures are known, and the runs seen within the overlap."""

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
    default_status=dg.DefaultSensorStatus.RUNNING,
    metadata=OWNED,
    description="Opens an alert for runs that failed and are not started again by themselves, one a backfill or job, "
    "and resolves it when the same has succeeded. `pipeline-platform alerts list` shows it.",
)
def failed_runs(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult:
    now = datetime.now(UTC)
    cursor = Cursor.read(context.cursor, now)
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=cursor.until - _OVERLAP)
    records = [
        record
        for record in context.instance.get_run_records(failed, limit=_RUNS_MAX)
        # A later change of a failed run, such as of its tags, is not a new failure.
        if (record.end_time or now.timestamp()) > (cursor.until - _OVERLAP).timestamp()
        and not _retries(record.dagster_run)
        and _is_ours(context, record.dagster_run)
    ]
    # The first tick reports no earlier failures.
    fresh = [record for record in records if context.cursor and record.dagster_run.run_id not in cursor.seen]
    with platform.connect() as conn:
        opened = _open(conn, fresh)
        resolved = _resolve(conn, context.instance)
    seen = frozenset(record.dagster_run.run_id for record in records)
    said = f"{len(fresh)} runs failed since the last tick ({', '.join(opened) or 'none'}); {resolved} alerts are over"
    return dg.SensorResult(skip_reason=said, cursor=Cursor(now, seen).write())


def _retries(run: dg.DagsterRun) -> bool:
    return run.tags.get(WILL_RETRY_TAG) == "true"


def _is_ours(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> bool:
    """Whether the run belongs to this code location; the instance may have several."""
    here, there = context.code_location_origin, run.remote_job_origin
    if here is None or there is None:
        return True
    return here.location_name == there.repository_origin.code_location_origin.location_name


def _open(conn: psycopg.Connection[Any], records: Iterable[dg.RunRecord]) -> list[str]:
    groups: defaultdict[str, list[dg.RunRecord]] = defaultdict(list)
    for record in records:
        run = record.dagster_run
        backfill = run.tags.get(_BACKFILL)
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


def _resolve(conn: psycopg.Connection[Any], instance: dg.DagsterInstance) -> int:
    """Resolve alerts whose failed runs have all been repeated successfully or deleted."""
    over = [
        alert_id
        for alert_id, fingerprint, opened_at in conn.execute(_SQL["open_run_failures"]).fetchall()
        if _is_over(instance, fingerprint, opened_at - _OVERLAP)
    ]
    return conn.execute(_SQL["runs_succeeded"], {"alert_ids": over}).rowcount if over else 0


def _is_over(instance: dg.DagsterInstance, fingerprint: str, since: datetime) -> bool:
    kind, _, backfill = fingerprint.rpartition(" ")
    chosen: dict[str, Any] = {"tags": {_BACKFILL: backfill}} if kind == "backfill" else {"job_name": fingerprint}
    failed = instance.get_runs(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since, **chosen), limit=_RUNS_MAX
    )
    failed = [run for run in failed if not _retries(run)]
    good: list[dg.DagsterRun] = []
    for job in {run.job_name for run in failed}:
        succeeded = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS], updated_after=since)
        good += instance.get_runs(succeeded, limit=_RUNS_MAX)
    return all(_is_made_good(run, good) for run in failed)


def _is_made_good(failed: dg.DagsterRun, good: Sequence[dg.DagsterRun]) -> bool:
    """Whether a run repeated it successfully, or one of the same job did over its hours or more."""
    first, last = _hours(failed.tags)
    for run in good:
        if run.root_run_id and run.root_run_id in (failed.run_id, failed.root_run_id):
            return True
        run_first, run_last = _hours(run.tags)
        if run.job_name == failed.job_name and (not first or (run_first and run_first <= first and last <= run_last)):
            return True
    return False


def _hours(tags: Mapping[str, str]) -> tuple[str, str]:
    """The first and last partition of a run; empty if it has none. Keys of hours sort by time."""
    one = tags.get(_PARTITION, "")
    return tags.get(_RANGE[0], one), tags.get(_RANGE[1], one)


def _of(run: dg.DagsterRun) -> str:
    first, last = _hours(run.tags)
    return f" for {first}" + (f" to {last}" if last != first else "") if first else ""
