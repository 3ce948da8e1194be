"""The group `migration`: the old pipeline compared with the platform, and its losses recovered."""

import dagster as dg

from pipeline_platform.defs.migration.cutover import cutover_watch
from pipeline_platform.defs.migration.dropped import find_dropped_events
from pipeline_platform.defs.migration.reconciliation import hourly_reconciliation, reconcile_hours, reconcile_job
from pipeline_platform.defs.migration.recovery import recovered_events, recovery_job

DEFS = dg.Definitions(
    assets=[reconcile_hours, find_dropped_events, recovered_events],
    jobs=[reconcile_job, recovery_job],
    schedules=[hourly_reconciliation],
    sensors=[cutover_watch],
)
