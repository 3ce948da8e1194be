"""The group `customers`: what customers read, counted and compared."""

import dagster as dg

from pipeline_platform.defs.customers.daily_report import daily_report, daily_report_job, daily_report_schedule
from pipeline_platform.defs.customers.rollups import hourly_rollups, roll_up_hours, rollups_job

DEFS = dg.Definitions(
    assets=[roll_up_hours, daily_report],
    jobs=[rollups_job, daily_report_job],
    schedules=[hourly_rollups, daily_report_schedule],
)
