"""The figures that the demo reads from its database. All rows belong to the demo, so it counts all of them."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipeline_platform.db import queries
from pipeline_platform.errors import PipelineError

_SQL = queries("demo")
LEGACY_STAGES = ("mirror", "gateway", "queue", "lookup", "write")
PLATFORM_PARTS = ("claim", "transform", "enrich", "load")
Conn = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Live:
    """The current state of both pipelines, in events."""

    accepted: int = 0
    delivered: int = 0
    dead_lettered: int = 0
    offered: int = 0
    written: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """The events accepted in a period, and how many of them each pipeline delivered."""

    accepted: int
    delivered: int
    legacy_delivered: int


@dataclass(frozen=True, slots=True)
class Latency:
    """One pipeline's 95th percentile in milliseconds, and its events by logarithmic class (see query latencies)."""

    p95_ms: float
    classes: Counter[int]


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant's events while both pipelines ran, and how many of them each pipeline delivered."""

    tenant: str
    events: int
    platform: int
    legacy: int


@dataclass(frozen=True, slots=True)
class Second:
    """Events in one second."""

    second: datetime
    accepted: int
    platform: int
    legacy: int


def live(conn: Conn) -> Live:
    return Live(**_row(conn, "live"))


def is_busy(conn: Conn) -> bool:
    """Whether a pipeline still has events that it has neither delivered nor lost."""
    row = _row(conn, "busy")
    return row["waiting"] > 0 or row["mirrored"] > 0 or row["inside"] > 0


def totals(conn: Conn) -> dict[str, int]:
    """accepted, delivered, legacy_accepted, legacy_delivered."""
    return _row(conn, "totals")


def window(conn: Conn, begin: datetime, end: datetime) -> Window:
    return Window(**_row(conn, "window", begin=begin, end=end))


def latencies(conn: Conn, begin: datetime, end: datetime) -> dict[str, Latency]:
    """Latencies by pipeline (platform, legacy). Call before a recovery: it gives moved rows the time of its commit."""
    rows = _rows(conn, "latencies", begin=begin, end=end)
    return {row["pipeline"]: Latency(row["p95_ms"], Counter(row["classes"])) for row in rows}


def losses(conn: Conn, accepted: int, delivered: int) -> dict[str, int]:
    """Events that the old pipeline lost, by stage; `unreported`: no stage reported the loss."""
    found = dict.fromkeys(LEGACY_STAGES, 0) | {row["stage"]: row["events"] for row in _rows(conn, "losses")}
    unreported = accepted - delivered - sum(found.values())
    return found | ({"unreported": unreported} if unreported else {})


def dead_letters(conn: Conn) -> dict[str, int]:
    """Events that the platform accepted and could not write, by the part of processing that failed."""
    return dict.fromkeys(PLATFORM_PARTS, 0) | {row["failed_in"]: row["events"] for row in _rows(conn, "dead_letters")}


def rates(conn: Conn) -> list[Second]:
    """Every second from the first event to the last, including those without events."""
    return [Second(**row) for row in _rows(conn, "rates")]


def tenants(conn: Conn) -> list[Tenant]:
    """The tenants, the largest first."""
    return [Tenant(**row) for row in _rows(conn, "tenants")]


def production(conn: Conn) -> tuple[int, int]:
    """The number of accepted events that production lacks, and of those that it has more than once."""
    row = _row(conn, "production")
    return row["missing"], row["doubled"]


def _rows(conn: Conn, query: str, **params: Any) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL[query], params).fetchall()


def _row(conn: Conn, query: str, **params: Any) -> dict[str, Any]:
    rows = _rows(conn, query, **params)
    if len(rows) != 1:
        raise PipelineError(f"the query {query} found {len(rows)} rows instead of one")
    return rows[0]
