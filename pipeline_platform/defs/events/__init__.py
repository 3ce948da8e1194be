"""The group `events`: an hour is sealed, drained, counted and proven."""

import dagster as dg

from pipeline_platform.defs.events.processing import process_hours, process_hours_job
from pipeline_platform.defs.events.sealed_hours import sealed_hours

DEFS = dg.Definitions(assets=[process_hours], jobs=[process_hours_job], sensors=[sealed_hours])
