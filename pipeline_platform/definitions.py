"""Dagster's entry point: merges the definitions of `defs/`. Loading it connects to nothing."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from pipeline_platform.defs import customers, dead_letters, events, migration, operations, replay, retention, warehouse
from pipeline_platform.defs.resources import Platform

_ROOMS = (events, customers, warehouse, migration, replay, retention, operations, dead_letters)


def build_defs(resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """All definitions; `resource_overrides` replaces resources by name (`platform`)."""
    shared = dg.Definitions(
        resources={"platform": Platform(), **(resource_overrides or {})},
        # A run is one process: its steps are short, and Celery's daemonic workers may have no child processes.
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(shared, *(room.DEFS for room in _ROOMS))


defs = build_defs()
