"""A plan: which events the window holds, which of its hours are gone, and the chunks for the workers."""

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.errors import ConfigError, PipelineError
from pipeline_platform.event.types import EventType

_SQL = queries("replay")
# Small enough that live events do not wait long behind a chunk, large enough that its commit costs little.
_CHUNK_EVENTS = 200
# Used until a diff has been measured in this installation.
_EVENTS_A_SECOND = 5_000.0
# Of a changed row two copies are kept: the new row and the before-image. The second number is the approximate size of
# the columns beside an event's own bytes.
_COPIES, _ROW_BYTES = 2, 600
_HOUR = timedelta(hours=1)


class PastRetentionError(PipelineError):
    """Part of the window is past the retention; nothing was planned. Exit 1."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What to replay: a window of received_at. tenant_ids, types: None means all. only_missing: add rows only."""

    start: datetime
    end: datetime
    tenant_ids: Sequence[int] | None = None
    types: Sequence[str] | None = None
    only_missing: bool = False

    def params(self) -> dict[str, Any]:
        """Parameters of the queries. ConfigError for a type that does not exist."""
        unknown = sorted(set(self.types or ()) - {kind.value for kind in EventType})
        if unknown:
            raise ConfigError(f"{', '.join(unknown)}: no type of event; there are {', '.join(EventType)}")
        kinds = None if self.types is None else [EventType(kind) for kind in self.types]
        return {
            "start": self.start,
            "end": self.end,
            "tenant_ids": None if self.tenant_ids is None else list(self.tenant_ids),
            "types": None if kinds is None else [kind.value for kind in kinds],
            "codes": None if kinds is None else [kind.code for kind in kinds],
            "only_missing": self.only_missing,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What a replay would process.

    hours, tenants: events in each. seconds: estimated duration of the diff. bytes_max: disk space if every row changes.
    unswept: hours whose batches are not all kept; no row in them is reported as removed.
    """

    replay_id: int
    events: int
    hours: dict[datetime, int]
    tenants: dict[str, int]
    seconds: float
    bytes_max: int
    unswept: list[datetime]


def make_plan(conn: psycopg.Connection[Any], scope: Scope, reason: str) -> Plan:
    """Count the window and write the chunks; nothing is processed yet.

    conn: in autocommit mode. ConfigError for an invalid scope; PastRetentionError names the hours that are gone.
    """
    if not reason.strip():
        raise ConfigError("say why with --reason: it is kept with the replay")
    if scope.start >= scope.end:
        raise ConfigError("the window ends before it begins")
    params = scope.params()
    with conn.transaction():
        _require_kept(conn, params)
        hours: dict[datetime, int] = {}
        tenants: dict[str, int] = {}
        size = 0
        for hour, tenant, events, length in conn.execute(_SQL["in_window"], params):
            hours[hour] = hours.get(hour, 0) + events
            tenants[tenant] = tenants.get(tenant, 0) + events
            size += length
        events = sum(hours.values())
        named = {"events": events, "actor": getpass.getuser(), "reason": reason}
        row = conn.execute(_SQL["plan"], params | named).fetchone()
        assert row
        conn.execute(_SQL["plan_chunks"], params | {"replay_id": row[0], "chunk": _CHUNK_EVENTS})
        unswept = [hour for (hour,) in conn.execute(_SQL["unswept"], {"replay_id": row[0]})]
        measured = conn.execute(_SQL["rate"]).fetchone()
    rate = float(measured[0]) if measured and measured[0] else _EVENTS_A_SECOND
    size = _COPIES * (size + events * _ROW_BYTES)
    return Plan(row[0], events, hours, tenants, events / rate, size, unswept)


def _require_kept(conn: psycopg.Connection[Any], params: dict[str, Any]) -> None:
    gone = [hour for (hour,) in conn.execute(_SQL["gaps"], params)]
    if gone:
        oldest = (conn.execute(_SQL["oldest_hour"]).fetchone() or (None,))[0]
        begins = f"; what is kept begins at {oldest:%Y-%m-%dT%H:%MZ}" if oldest else ""
        raise PastRetentionError(
            f"past the retention: {len(gone)} hours from {gone[0]:%Y-%m-%dT%H:%MZ} to "
            f"{gone[-1] + _HOUR:%Y-%m-%dT%H:%MZ} are gone{begins}. "
            "Nothing was planned: give --from a later time, or take the hours back from their archives "
            "(pipeline-platform archive restore)"
        )
