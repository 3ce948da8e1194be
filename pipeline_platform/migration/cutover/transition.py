"""Changes the phase: one row, in one transaction, with its entry in the audit log.

The transaction that accepts a batch stamps it with the epoch. So each event belongs to exactly one pipeline, whenever
the phase changes and even if the command is killed. Going forward needs an open gate or `force`; going back needs none.
"""

from collections.abc import Generator
from contextlib import contextmanager
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
    with _alone(conn) as here:
        if here.phase is phase:
            raise ConfigError(f"the phase is {phase} already")
        gate = gate_of(conn, settings, phase)
        if not force:
            _check(here, phase, gate)
        epoch = _enter(conn, here, phase, reason=reason, actor=actor, force=force, gate=gate)
    reach("cutover.after_commit")
    return epoch


def back(conn: Conn, from_phase: Phase, *, reason: str, actor: str | None = None) -> int:
    """Return from this phase to the one before; returns the new epoch. Has no gate.

    ConfigError if the phase is another one, so that two people who turn back at once go back one phase, or if there is
    none before it.
    """
    with _alone(conn) as here:
        if here.phase is not from_phase:
            raise ConfigError(f"the phase is {here.phase}, not {from_phase}: see pipeline-platform cutover status")
        if here.phase.previous is None or (here.phase is Phase.LEGACY_OFF and here.epoch == 1):
            raise ConfigError(f"there is no phase before {here.phase}: see pipeline-platform cutover status")
        epoch = _enter(conn, here, here.phase.previous, reason=reason, actor=actor, force=False, gate=[])
    reach("cutover.after_commit")
    return epoch


@contextmanager
def _alone(conn: Conn) -> Generator[Current]:
    """A transaction in which only this process changes the phase; yields the epoch in force."""
    with conn.transaction():
        conn.execute(_SQL["lock"])
        yield current(conn)


def _enter(
    conn: Conn,
    here: Current,
    phase: Phase,
    *,
    reason: str,
    actor: str | None,
    force: bool,
    gate: list[Condition],
) -> int:
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
    return epoch


def _check(here: Current, phase: Phase, gate: list[Condition]) -> None:
    if phase is not here.phase.next:
        raise ConfigError(
            f"after {here.phase} comes {here.phase.next}, not {phase}: go step by step, back with "
            f"cutover back --from {here.phase}, or skip with --force --reason"
        )
    closed = [condition for condition in gate if not condition.is_met]
    if closed:
        waits = "; ".join(f"{each.name}: {each.found} ({each.remedy})" for each in closed)
        raise ClosedGateError(f"the gate to {phase} is closed. {waits}")
