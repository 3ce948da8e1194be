"""Watches production after a cutover: every anomaly is an alert until it is over."""

from datetime import UTC, datetime

import dagster as dg

from pipeline_platform.defs import automation
from pipeline_platform.defs.policies import OWNED
from pipeline_platform.defs.resources import Platform
from pipeline_platform.migration.cutover.phases import current
from pipeline_platform.migration.cutover.watch import is_watching, watch, watch_ends_at


@dg.sensor(  # pyright: ignore[reportUnknownMemberType]
    minimum_interval_seconds=30,
    default_status=automation.SENSORS,
    metadata=OWNED,
    description="Watches the hours after the platform became production (PIPELINE_CUTOVER_WATCH_H): dead letters, lag, "
    "latency, the account, drift. Each anomaly opens one alert, which is resolved when it is over. "
    "`pipeline-platform cutover back --from platform_primary` turns back at once.",
)
def cutover_watch(platform: Platform) -> dg.SkipReason:
    settings = platform.settings()
    with platform.connect() as conn:
        here = current(conn)
        found = watch(conn, settings)
    ends_at = watch_ends_at(here, settings)
    if not is_watching(here, settings) or ends_at is None:
        return dg.SkipReason(f"nothing to watch in phase {here.phase}")
    left = ends_at - datetime.now(UTC)
    names = ", ".join(anomaly.name for anomaly in found)
    return dg.SkipReason(f"{f'anomalies: {names}' if found else 'no anomaly'}; the watch goes on for {left}")
