"""The group `warehouse`: delivered hours are exported for a warehouse, where an address is set."""

import dagster as dg

from pipeline_platform.defs.warehouse.exported import EXPORTS_ARE_OFF, export_hours, exports_job, hourly_exports
from pipeline_platform.settings import Settings


def build(settings: Settings) -> dg.Definitions:
    """The definitions; without an address the asset cannot be launched, and its description says how to turn it on."""
    if not settings.warehouse_url:
        return dg.Definitions(assets=[EXPORTS_ARE_OFF])
    return dg.Definitions(assets=[export_hours], jobs=[exports_job], schedules=[hourly_exports])


DEFS = build(Settings.read())
