"""Dagster's entry point: merges the definitions of `defs/`. Loading it connects to nothing."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from pipeline_platform.defs.alerts import open_alerts, sensor_reports
from pipeline_platform.defs.archive import archived_hours
from pipeline_platform.defs.cutover import cutover_watch
from pipeline_platform.defs.daily_report import daily_report, daily_report_job, daily_report_schedule
from pipeline_platform.defs.dead_letters import dead_letters, redrive_job
from pipeline_platform.defs.processing import process_hours, process_hours_job
from pipeline_platform.defs.pruning import prune_runs, prune_runs_job
from pipeline_platform.defs.reconciliation import hourly_reconciliation, reconcile_hours, reconcile_job
from pipeline_platform.defs.recovery import recover_hours, recovery_job
from pipeline_platform.defs.replay import replay_hours, replay_job
from pipeline_platform.defs.replay_jobs import commit_replay_job, undo_replay_job
from pipeline_platform.defs.resources import Platform
from pipeline_platform.defs.retention import retained_hours, retention_job, retention_schedule
from pipeline_platform.defs.rollups import hourly_rollups, roll_up_hours, rollups_job
from pipeline_platform.defs.run_failures import failed_runs
from pipeline_platform.defs.sealed_hours import sealed_hours
from pipeline_platform.defs.stuck_runs import stuck_runs


def build_defs(resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """All definitions; `resource_overrides` replaces resources by name (`platform`)."""
    return dg.Definitions(
        assets=[
            process_hours,
            archived_hours,
            retained_hours,
            reconcile_hours,
            recover_hours,
            replay_hours,
            dead_letters,
            roll_up_hours,
            daily_report,
        ],
        jobs=[
            process_hours_job,
            retention_job,
            reconcile_job,
            recovery_job,
            replay_job,
            commit_replay_job,
            undo_replay_job,
            redrive_job,
            rollups_job,
            daily_report_job,
            prune_runs_job,
        ],
        schedules=[retention_schedule, hourly_reconciliation, hourly_rollups, daily_report_schedule, prune_runs],
        sensors=[sealed_hours, cutover_watch, open_alerts, failed_runs, stuck_runs, sensor_reports],
        resources={"platform": Platform(), **(resource_overrides or {})},
        # A run is one process: its steps are short, and Celery's daemonic workers may have no child processes.
        executor=dg.in_process_executor,
    )


defs = build_defs()
