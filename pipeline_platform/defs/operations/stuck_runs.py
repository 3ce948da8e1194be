"""stuck_runs: alerts for runs without a sign of life, and for runs that wait in the queue for too long.

A run that lost its process is failed and started again within a minute, so what this sensor sees has survived that. It
looks twice before it opens an alert, because a run may be between two states. It changes no run.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from pipeline_platform.db import queries
from pipeline_platform.defs import automation
from pipeline_platform.defs.operations.run_failures import is_ours
from pipeline_platform.defs.policies import OWNED
from pipeline_platform.defs.resources import Platform
from pipeline_platform.private_dagster import BACKFILL_ID_TAG, WorkerStatus

_SQL = queries("alerts")
_RUNS_MAX = 1_000
_UNDER_WAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


@dataclass(frozen=True, slots=True)
class Stuck:
    """One alert. runs: how many are stuck for the same cause. sample: the id of one of them."""

    fingerprint: str
    message: str
    runs: int
    since: datetime
    sample: str


@dg.sensor(  # pyright: ignore[reportUnknownMemberType]
    minimum_interval_seconds=60,
    default_status=automation.SENSORS,
    metadata=OWNED,
    description="Opens an alert for runs that have no process or write nothing, and for runs that wait in the queue "
    "while none of the same job or backfill starts. Resolves it when they go on or have ended.",
)
def stuck_runs(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult:
    settings, now = platform.settings(), datetime.now(UTC)
    silent = timedelta(seconds=settings.alert_run_silent_s)
    waits = timedelta(seconds=settings.alert_run_waits_s)
    found = [*_silent(context, now - silent), *_waiting(context, now - waits)]
    before = set(json.loads(context.cursor or "[]"))
    known = [each for each in found if each.fingerprint in before]
    values = {
        "fingerprints": [each.fingerprint for each in known],
        "messages": [each.message for each in known],
        "runs": [each.runs for each in known],
        "since": [each.since for each in known],
        "samples": [each.sample for each in known],
    }
    with platform.connect() as conn:
        conn.execute(_SQL["runs_stuck"], values)
    said = "; ".join(each.message for each in found) or "no run is stuck"
    return dg.SensorResult(skip_reason=said, cursor=json.dumps([each.fingerprint for each in found]))


def _silent(context: dg.SensorEvaluationContext, since: datetime) -> Iterator[Stuck]:
    """Runs under way without a process, or, where the launcher cannot tell, without an event since `since`."""
    launcher = context.instance.run_launcher
    for record in _records(context, _UNDER_WAY):
        run = record.dagster_run
        if launcher.supports_check_run_worker_health:
            health = launcher.check_run_worker_health(run)
            if health.status not in (WorkerStatus.RUNNING, WorkerStatus.SUCCESS):
                said = f"{run.job_name} is {run.status.value} and has no process: run {run.run_id}"
                yield Stuck(f"run {run.run_id}", said, 1, record.update_timestamp, run.run_id)
                continue
        last = _last_event_at(context.instance, record)
        if last < since:
            said = f"{run.job_name} has written nothing since {last:%Y-%m-%d %H:%M} UTC: run {run.run_id}"
            yield Stuck(f"run {run.run_id}", said, 1, last, run.run_id)


def _last_event_at(instance: dg.DagsterInstance, record: dg.RunRecord) -> datetime:
    events = instance.get_records_for_run(record.dagster_run.run_id, limit=1, ascending=False).records
    if not events:
        return record.update_timestamp
    return datetime.fromtimestamp(events[0].event_log_entry.timestamp, UTC)


def _waiting(context: dg.SensorEvaluationContext, since: datetime) -> Iterator[Stuck]:
    """Jobs and backfills with a run that is queued since before `since`, of which none started since then."""
    queued: defaultdict[str, list[dg.RunRecord]] = defaultdict(list)
    for record in _records(context, [dg.DagsterRunStatus.QUEUED]):
        queued[_whose(record.dagster_run)].append(record)
    oldest = {name: min(records, key=lambda each: each.create_timestamp) for name, records in queued.items()}
    late = {name for name, record in oldest.items() if record.create_timestamp < since}
    if not late:
        return
    changed = context.instance.get_run_records(dg.RunsFilter(updated_after=since), limit=_RUNS_MAX)
    moving = {_whose(each.dagster_run) for each in changed if (each.start_time or 0) > since.timestamp()}
    for name in sorted(late - moving):
        first = oldest[name]
        said = f"{len(queued[name])} runs of {name} wait, the first since {first.create_timestamp:%Y-%m-%d %H:%M} UTC"
        yield Stuck(f"queue {name}", said, len(queued[name]), first.create_timestamp, first.dagster_run.run_id)


def _whose(run: dg.DagsterRun) -> str:
    backfill = run.tags.get(BACKFILL_ID_TAG)
    return f"backfill {backfill}" if backfill else run.job_name


def _records(context: dg.SensorEvaluationContext, statuses: list[dg.DagsterRunStatus]) -> list[dg.RunRecord]:
    found = context.instance.get_run_records(dg.RunsFilter(statuses=statuses), limit=_RUNS_MAX)
    return [record for record in found if is_ours(context, record.dagster_run)]
