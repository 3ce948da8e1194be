"""The group `retention`: hours are archived and dropped."""

import dagster as dg

from pipeline_platform.defs.retention.archived import archived_hours
from pipeline_platform.defs.retention.retained import retained_hours, retention_job, retention_schedule

DEFS = dg.Definitions(assets=[archived_hours, retained_hours], jobs=[retention_job], schedules=[retention_schedule])
