"""The gate of each phase: conditions measured now, each with the value found and the command that would meet it."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline_platform.db import queries
from pipeline_platform.migration.cutover.health import Condition, Conn, health, row_of
from pipeline_platform.migration.cutover.parity import parity
from pipeline_platform.migration.cutover.phases import Phase, current
from pipeline_platform.migration.cutover.watch import anomalies, watch_ends_at
from pipeline_platform.migration.recovery.dropped import Window, find_dropped
from pipeline_platform.settings import Settings

_SQL = queries("cutover")
_MIRROR_LAG_S_MAX = 60.0


def gate_of(conn: Conn, settings: Settings, phase: Phase) -> list[Condition]:
    """The conditions for entering a phase. conn: in autocommit mode or within the transaction that enters it."""
    return _GATES[phase](conn, settings)


def is_open(conditions: Sequence[Condition]) -> bool:
    return all(condition.is_met for condition in conditions)


def _to_legacy_only(conn: Conn, _settings: Settings) -> list[Condition]:
    mirror = row_of(conn, "mirror")
    return [
        Condition(
            "forward target",
            mirror["forward_url"] is not None,
            mirror["forward_url"] or "none is configured",
            "pipeline-platform mirror configure FILE.toml",
        ),
        _mirror_runs(mirror),
    ]


def _mirror_runs(mirror: dict[str, Any]) -> Condition:
    return Condition(
        "mirror", mirror["runs"], "runs" if mirror["runs"] else "does not run", "pipeline-platform up starts it"
    )


def _to_shadow(conn: Conn, _settings: Settings) -> list[Condition]:
    mirror = row_of(conn, "mirror")
    has_rows = row_of(conn, "output_has_rows")["exists"]
    oldest_s = mirror["oldest_s"] or 0.0
    return [
        _mirror_runs(mirror),
        Condition(
            "mirror lag", oldest_s < _MIRROR_LAG_S_MAX, f"{mirror['waiting']:,} events wait, up to {oldest_s:.0f} s",
            f"less than {_MIRROR_LAG_S_MAX:.0f} s: see logs/mirror.log, pipeline-platform mirror show",
        ),
        Condition(
            "mirror delivers", mirror["proceeded"] > 0 and mirror["lost_lately"] == 0,
            f"{mirror['proceeded']:,} events forwarded, {mirror['lost_lately']:,} lost on the way in 5 minutes",
            "pipeline-platform funnel says where; the old pipeline must take what it is sent",
        ),
        Condition(
            "legacy output", has_rows, "has rows" if has_rows else "has no row",
            "see [output] in pipeline-platform mirror configure",
        ),
    ]  # fmt: skip


def _to_platform_primary(conn: Conn, settings: Settings) -> list[Condition]:
    return [*parity(conn, settings), *health(conn, settings)]


def _to_legacy_off(conn: Conn, settings: Settings) -> list[Condition]:
    here = current(conn)
    ends_at = watch_ends_at(here, settings)
    is_over = ends_at is not None and datetime.now(UTC) >= ends_at
    found = anomalies(conn, settings)
    dropped = find_dropped(conn, Window(datetime(2000, 1, 1, tzinfo=UTC), datetime.now(UTC))).events
    said = "is over" if is_over else f"goes on until {ends_at:%Y-%m-%d %H:%M:%S} UTC" if ends_at else "has not begun"
    return [
        Condition("watch", is_over, said, "wait, or --force --reason"),
        Condition(
            "anomalies", not found, ", ".join(each.name for each in found) or "none", "pipeline-platform cutover status"
        ),
        Condition(
            "recovery", dropped == 0, f"{dropped:,} events that the old pipeline dropped are not in production",
            "pipeline-platform recover --reason …",
        ),
    ]  # fmt: skip


_GATES: dict[Phase, Callable[[Conn, Settings], list[Condition]]] = {
    Phase.LEGACY_ONLY: _to_legacy_only,
    Phase.SHADOW: _to_shadow,
    Phase.PLATFORM_PRIMARY: _to_platform_primary,
    Phase.LEGACY_OFF: _to_legacy_off,
}
