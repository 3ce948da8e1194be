"""Alerts, failed runs and the pruning of Dagster's own runs; no assets."""

import dagster as dg

from pipeline_platform.defs.operations.alerts import open_alerts, sensor_reports
from pipeline_platform.defs.operations.pruning import prune_runs, prune_runs_job
from pipeline_platform.defs.operations.run_failures import failed_runs

DEFS = dg.Definitions(jobs=[prune_runs_job], schedules=[prune_runs], sensors=[open_alerts, failed_runs, sensor_reports])
