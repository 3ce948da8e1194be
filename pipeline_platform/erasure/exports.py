"""Exports every hour anew whose rows an erasure changed, and removes the versions before."""

from pipeline_platform.db import queries
from pipeline_platform.erasure.plan import one_row
from pipeline_platform.erasure.run import Run
from pipeline_platform.warehouse.hours import due_hours, export_hour
from pipeline_platform.warehouse.versions import remove_replaced

_SQL = queries("erasure")


def erase_exports(run: Run) -> None:
    """Replace exported hours that changed. What cannot be replaced now is named in `not_ours`."""
    if run.settings.warehouse_url:
        hours = due_hours(run.conn, run.settings, new=False)
        for number, hour in enumerate(hours):
            run.progress(f"exported hour {number + 1} of {len(hours)}")
            run.erasure.changed["exported_hours"] += export_hour(run.conn, run.settings, hour).is_new
    remove_replaced(run.conn, run.settings)
    (stale,) = one_row(run.conn, "stale_exports", {})
    if stale:
        why = "they are exported anew when their events in flight are delivered"
        if not run.settings.warehouse_url:
            why = "exports are off: set PIPELINE_WAREHOUSE_URL and erase again, or remove the files"
        run.erasure.not_ours.append(f"{stale} exported hours: {why}")
