"""The phases of a migration, in order. An installation without an old pipeline is in `legacy_off`."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg

from pipeline_platform.db import queries

_SQL = queries("cutover")


class Phase(StrEnum):
    """The old pipeline is production in the first two phases, the platform in the others."""

    LEGACY_ONLY = "legacy_only"
    SHADOW = "shadow"
    PLATFORM_PRIMARY = "platform_primary"
    LEGACY_OFF = "legacy_off"

    @property
    def next(self) -> "Phase":
        """The next phase. After the last phase a new migration begins."""
        order = list(Phase)
        return order[(order.index(self) + 1) % len(order)]

    @property
    def previous(self) -> "Phase | None":
        order = list(Phase)
        return order[order.index(self) - 1] if self is not Phase.LEGACY_ONLY else None


@dataclass(frozen=True, slots=True)
class Current:
    """The epoch in force."""

    epoch: int
    phase: Phase
    since: datetime
    is_shadow: bool
    is_mirrored: bool


def current(conn: psycopg.Connection[Any]) -> Current:
    """The newest epoch."""
    row = conn.execute(_SQL["current"]).fetchone()
    assert row
    return Current(row[0], Phase(row[1]), *row[2:])
