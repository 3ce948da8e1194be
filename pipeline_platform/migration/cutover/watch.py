"""The hours after the platform became production: each anomaly opens an alert, which is resolved when it is over."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline_platform.db import queries
from pipeline_platform.migration.cutover.health import Conn, health
from pipeline_platform.migration.cutover.phases import Current, Phase, current
from pipeline_platform.settings import Settings

_SQL = queries("cutover")


@dataclass(frozen=True, slots=True)
class Anomaly:
    """An unexpected condition, and its remedy."""

    name: str
    found: str
    remedy: str
    events: int = 1


def watch_ends_at(here: Current, settings: Settings) -> datetime | None:
    """When the watch after the cutover ends; None if the platform did not just become production."""
    if here.phase is not Phase.PLATFORM_PRIMARY:
        return None
    return here.since + timedelta(hours=settings.cutover_watch_h)


def is_watching(here: Current, settings: Settings) -> bool:
    ends_at = watch_ends_at(here, settings)
    return ends_at is not None and datetime.now(UTC) < ends_at


def anomalies(conn: Conn, settings: Settings) -> list[Anomaly]:
    """The anomalies since the change to platform_primary; none in other phases."""
    here = current(conn)
    if here.phase is not Phase.PLATFORM_PRIMARY:
        return []
    found = [
        Anomaly(condition.name.replace(" ", "_"), condition.found, condition.remedy)
        for condition in health(conn, settings, here.since)
        if not condition.is_met
    ]
    extra, mismatched = conn.execute(_SQL["drift"], {"since": here.since}).fetchone() or (0, 0)
    if extra or mismatched:
        text = f"{extra:,} events that only the old pipeline has, {mismatched:,} with other content"
        found.append(Anomaly("drift", text, "pipeline-platform reconcile", extra + mismatched))
    (lost,) = conn.execute(_SQL["mirror_losses"], {"since": here.since}).fetchone() or (0,)
    if lost:
        text = f"{lost:,} events did not reach the old pipeline: turning back would lose them until they are recovered"
        found.append(Anomaly("mirror_losses", text, "pipeline-platform mirror acknowledge --reason …", lost))
    return found


def watch(conn: Conn, settings: Settings) -> list[Anomaly]:
    """Open an alert for each anomaly and resolve those that are over. After the watch all are resolved."""
    found = anomalies(conn, settings) if is_watching(current(conn), settings) else []
    with conn.transaction():
        for each in found:
            turn_back = "pipeline-platform cutover back --from platform_primary"
            message = f"since the cutover: {each.found}; {each.remedy}; turn back: {turn_back}"
            conn.execute(_SQL["open_alert"], {"name": each.name, "message": message, "events": each.events})
        conn.execute(_SQL["resolve_alerts"], {"names": [each.name for each in found]})
    return found
