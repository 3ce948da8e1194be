"""Whether both pipelines have delivered all that they will of a window.

It does not infer this from counts. The old pipeline's backlog is not visible. So the window is settled when settle_s
seconds have passed since its end and the old pipeline has delivered nothing of it for as long. If a window never
settles, look for waiting work in `pipeline-platform status` and check the mirror.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.errors import NotNowError
from pipeline_platform.migration.identities import store_identities

_SQL = queries("reconcile")


@dataclass(frozen=True, slots=True)
class Settled:
    """waits_for: the reasons why a window may still change; empty if it is settled."""

    waits_for: tuple[str, ...]

    @property
    def is_settled(self) -> bool:
        return not self.waits_for

    def require(self) -> None:
        """Raises NotNowError if the window is not settled."""
        if self.waits_for:
            raise NotNowError(f"the window is not settled: {'; '.join(self.waits_for)}")


def settled(conn: psycopg.Connection[Any], start: datetime, end: datetime, settle_s: float | None = None) -> Settled:
    """What the window [start, end) of received_at still waits for. settle_s: seconds; None: as configured."""
    if settle_s is None:
        row = conn.execute(_SQL["target"]).fetchone()
        assert row, "the baseline makes the row"
        settle_s = float(row[1])
    window = {"start": start, "end": end, "settle_s": settle_s}
    row = conn.execute(_SQL["waiting"], window).fetchone()
    assert row
    in_flight, in_mirror, accepting, ends_in_s, settles_in_s = row
    waits: list[str] = []
    if ends_in_s > 0:
        waits.append(f"the window ends in {ends_in_s:.0f} s")
    if accepting:
        waits.append(f"{accepting} transactions may still accept events into it")
    if in_flight:
        waits.append(f"{in_flight:,} events are in flight on the platform")
    if in_mirror:
        waits.append(f"{in_mirror:,} events wait for the mirror")
    if settles_in_s > 0:
        waits.append(f"the old pipeline may deliver for another {settles_in_s:.0f} s (settle_s)")
    if not waits:
        store_identities(conn, start)
        if conn.execute(_SQL["still_delivers"], window).fetchone() == (True,):
            waits.append(f"the old pipeline delivered some of it within the last {settle_s:.0f} s")
    return Settled(tuple(waits))


def settled_until(conn: psycopg.Connection[Any]) -> datetime:
    """The latest end of a window that can be settled now: settle_s ago, by the database's clock."""
    row = conn.execute(_SQL["settled_until"]).fetchone()
    assert row
    return row[0]
