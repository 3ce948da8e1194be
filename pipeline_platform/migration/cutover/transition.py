"""Changes the phase: one row, in one transaction, with its entry in the audit log.

The transaction that accepts a batch stamps it with the epoch. So each event belongs to exactly one pipeline, whenever
the phase changes and even if the command is killed. Going forward needs an open gate or `force`; going back needs none.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pipeline_platform.audit_log import note
from pipeline_platform.db import queries
from pipeline_platform.errors import ClosedGateError, ConfigError
from pipeline_platform.kill_points import reach
from pipeline_platform.migration.cutover.gates import gate_of, is_open
from pipeline_platform.migration.cutover.health import Condition, Conn
from pipeline_platform.migration.cutover.phases import Current, Phase, current
from pipeline_platform.migration.cutover.watch import Anomaly, anomalies, is_watching, watch_ends_at
from pipeline_platform.settings import Settings

_SQL = queries("cutover")


@dataclass(frozen=True, slots=True)
class CutoverStatus:
    """The state of the migration. gate: of the next phase."""

    current: Current
    actor: str | None
    reason: str | None
    next_phase: Phase
    gate: list[Condition]
    is_watching: bool
    watch_ends_at: datetime | None
    anomalies: list[Anomaly]

    @property
    def gate_is_open(self) -> bool:
        return is_open(self.gate)

    def to_json(self) -> dict[str, Any]:
        return {
            "phase": self.current.phase.value,
            "epoch": self.current.epoch,
            "since": self.current.since,
            "production": "legacy" if self.current.is_shadow else "platform",
            "mirrored": self.current.is_mirrored,
            "actor": self.actor,
            "reason": self.reason,
            "next_phase": self.next_phase.value,
            "gate_open": self.gate_is_open,
            "gate": [asdict(condition) for condition in self.gate],
            "watching": self.is_watching,
            "watch_ends_at": self.watch_ends_at,
            "anomalies": [asdict(anomaly) for anomaly in self.anomalies],
        }


def status(conn: Conn, settings: Settings) -> CutoverStatus:
    """The current state of the migration. conn: in autocommit mode."""
    here = current(conn)
    entry = conn.execute(_SQL["last_entry"]).fetchone() or (None, None, None)
    return CutoverStatus(
        here,
        entry[0],
        entry[1],
        here.phase.next,
        gate_of(conn, settings, here.phase.next),
        is_watching(here, settings),
        watch_ends_at(here, settings),
        anomalies(conn, settings),
    )


def turn(
    conn: Conn, settings: Settings, phase: Phase, *, reason: str, actor: str | None = None, force: bool = False
) -> int:
    """Enter a phase; returns the new epoch. ClosedGateError if its gate is closed, ConfigError if it is not the next.

    force: ignore the gate and the order of phases; needs a reason. conn: in autocommit mode.
    """
    if force and not reason:
        raise ConfigError("--force needs --reason: it goes into the audit log")
    return _turn(conn, settings, phase, reason=reason, actor=actor, force=force, is_back=False)


def back(conn: Conn, settings: Settings, *, reason: str, actor: str | None = None) -> int:
    """Return to the previous phase; returns the new epoch. Has no gate. ConfigError if there is no previous phase."""
    here = current(conn)
    if here.phase.previous is None or (here.phase is Phase.LEGACY_OFF and here.epoch == 1):
        raise ConfigError(f"there is no phase before {here.phase}: see pipeline-platform cutover status")
    return _turn(conn, settings, here.phase.previous, reason=reason, actor=actor, force=False, is_back=True)


def _turn(
    conn: Conn, settings: Settings, phase: Phase, *, reason: str, actor: str | None, force: bool, is_back: bool
) -> int:
    with conn.transaction():
        conn.execute(_SQL["lock"])
        here = current(conn)
        if here.phase is phase:
            raise ConfigError(f"the phase is {phase} already")
        gate = [] if is_back else gate_of(conn, settings, phase)
        if not (force or is_back):
            _check(here, phase, gate)
        (epoch,) = conn.execute(_SQL["turn"], {"phase": phase.value}).fetchone() or (0,)
        detail = {
            "from": here.phase.value,
            "to": phase.value,
            "forced": force,
            "gate": {condition.name: condition.found for condition in gate},
            "epoch": epoch,
        }
        note(conn, "cutover", reason, detail, by=actor)
        reach("cutover.before_commit")
    reach("cutover.after_commit")
    return epoch


def _check(here: Current, phase: Phase, gate: list[Condition]) -> None:
    if phase is not here.phase.next:
        raise ConfigError(
            f"after {here.phase} comes {here.phase.next}, not {phase}: go step by step, back with cutover back, "
            "or skip with --force --reason"
        )
    closed = [condition for condition in gate if not condition.is_met]
    if closed:
        waits = "; ".join(f"{each.name}: {each.found} ({each.remedy})" for each in closed)
        raise ClosedGateError(f"the gate to {phase} is closed. {waits}")
