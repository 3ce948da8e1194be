"""The group `migration`: the old pipeline compared with the platform, and its losses recovered."""

import dagster as dg

from pipeline_platform.defs.migration.cutover import cutover_watch
from pipeline_platform.defs.migration.reconciliation import hourly_reconciliation, reconcile_hours, reconcile_job
from pipeline_platform.defs.migration.recovery import recover_hours, recovery_job

DEFS = dg.Definitions(
    assets=[reconcile_hours, recover_hours],
    jobs=[reconcile_job, recovery_job],
    schedules=[hourly_reconciliation],
    sensors=[cutover_watch],
)
