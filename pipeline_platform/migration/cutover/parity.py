"""Parity: for how long, up to now, the comparisons found no difference, and of how many events and tenants."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline_platform.db import queries
from pipeline_platform.migration.cutover.health import Condition, Conn, row_of
from pipeline_platform.migration.reconcile.result import UNMATCHED_MIN
from pipeline_platform.settings import Settings

_SQL = queries("cutover")
# An older parity does not count.
_AGE_MAX = timedelta(hours=2, minutes=30)
# The largest gap allowed between two windows: the time between two commands.
_GAP_MAX = timedelta(seconds=5)
_TENANTS_NAMED = 5


@dataclass(frozen=True, slots=True)
class _Stretch:
    """The settled windows with parity, without a gap, up to the newest comparison. None: there is none."""

    start: datetime | None
    end: datetime | None


def parity(conn: Conn, settings: Settings) -> list[Condition]:
    """The conditions on parity: its time, and what was compared in it."""
    stretch = _stretch(conn)
    return [_long_enough(conn, settings, stretch), _of_enough(conn, settings, stretch)]


def _stretch(conn: Conn) -> _Stretch:
    begin: datetime | None = None
    end: datetime | None = None
    for start, stop, has_parity in conn.execute(_SQL["windows"]).fetchall():
        if not has_parity or (begin is not None and stop < begin - _GAP_MAX):
            break
        begin, end = min(start, begin or start), end or stop
    return _Stretch(begin, end)


def _long_enough(conn: Conn, settings: Settings, stretch: _Stretch) -> Condition:
    wanted = timedelta(hours=settings.parity_h)
    since = row_of(conn, "shadow_since")["min"]
    covered = timedelta(0)
    if stretch.start is not None and stretch.end is not None:
        covered = stretch.end - (max(stretch.start, since) if since else stretch.start)
    is_fresh = stretch.end is not None and datetime.now(UTC) - stretch.end < _AGE_MAX
    found = f"{_hours(covered)} of {_hours(wanted)} without a difference on the platform's side"
    if not is_fresh and stretch.end is not None:
        found += f", but the newest comparison ended {stretch.end:%Y-%m-%d %H:%M}"
    return Condition(
        "parity", is_fresh and covered >= wanted and covered > timedelta(0), found,
        "pipeline-platform reconcile (the schedule does it hourly)",
    )  # fmt: skip


def _of_enough(conn: Conn, settings: Settings, stretch: _Stretch) -> Condition:
    """Parity is a claim about events that were compared: enough of them, of enough tenants, and no row unexplained."""
    window = {"start": stretch.start, "end": stretch.end}
    by_tenant = conn.execute(_SQL["compared"], window).fetchall()
    unknown = row_of(conn, "unknown_rows", **window)["rows"]
    matched = sum(events for _, _, events in by_tenant)
    tenants = sum(1 for _, _, events in by_tenant if events)
    unmatched = [name for name, accepted, events in by_tenant if not events and accepted >= UNMATCHED_MIN]
    found = f"{matched:,} events of {tenants:,} tenants matched"
    if unmatched:
        more = f" and {len(unmatched) - _TENANTS_NAMED} more" if len(unmatched) > _TENANTS_NAMED else ""
        found += f"; none of {', '.join(unmatched[:_TENANTS_NAMED])}{more}"
    if unknown:
        found += f"; {unknown:,} rows of the old pipeline without a known tenant, an id or a time"
    return Condition(
        "compared",
        matched >= settings.parity_events_min
        and tenants >= settings.parity_tenants_min
        and not unmatched
        and not unknown,
        found,
        f"at least {settings.parity_events_min:,} events of {settings.parity_tenants_min:,} tenants "
        "(PIPELINE_PARITY_EVENTS_MIN, PIPELINE_PARITY_TENANTS_MIN), and no tenant or row left out: "
        "pipeline-platform reconcile names them, [output] of pipeline-platform mirror configure says how rows are read",
    )


def _hours(span: timedelta) -> str:
    seconds = span.total_seconds()
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 or seconds == 0 else f"{seconds:.0f} s"
