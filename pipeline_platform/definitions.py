"""Dagster's entry point: merges the definitions of `defs/`. Loading it connects to nothing."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from pipeline_platform.defs import (
    customers,
    dead_letters,
    events,
    migration,
    operations,
    outside,
    replay,
    retention,
    warehouse,
)
from pipeline_platform.defs.resources import Platform
from pipeline_platform.private_dagster import with_code_references

_ROOMS = (events, customers, warehouse, migration, replay, retention, operations, dead_letters, outside)


def build_defs(resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """All definitions; `resource_overrides` replaces resources by name (`platform`)."""
    merged = dg.Definitions.merge(*(room.DEFS for room in _ROOMS))
    return dg.Definitions(
        assets=with_code_references(list(merged.assets or ())),
        asset_checks=merged.asset_checks,
        jobs=merged.jobs,
        schedules=merged.schedules,
        sensors=merged.sensors,
        resources={"platform": Platform(), **(resource_overrides or {})},
        # A run is one process: its steps are short, and Celery's daemonic workers may have no child processes.
        executor=dg.in_process_executor,
    )


defs = build_defs()
