"""The current state from the database: of the platform as a whole, and of all tenants or one.

It uses a read-only connection. The account comes from the same query as in `pipeline-platform funnel`, the alerts from
the same query as in `pipeline-platform alerts list`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipeline_platform.account.funnel import Funnel, funnel_of, tenant_id_of
from pipeline_platform.account.numbers import Numbers, numbers_of
from pipeline_platform.db import connect, queries
from pipeline_platform.disk import Room, room_under
from pipeline_platform.settings import Settings
from pipeline_platform.watch.alerts.catalogue import Severity
from pipeline_platform.watch.alerts.operations import list_alerts

_SQL = queries("console")
_SAMPLED_BATCHES = 300
_TENANT_EVENTS = 100
_WORST = 12
_ROWS = 10
_ALERTS_MAX = 1_000
_STATEMENT_S = 10.0

Conn = psycopg.Connection[Any]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from acceptance to delivery in the last five minutes; None: nothing was accepted."""

    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Platform:
    """The part that is the same for all views. queue: by lane; oldest_s: age of the event that waits longest.

    disk: None if it cannot be looked at.
    """

    taken_at: datetime
    since: datetime
    queue: list[Row]
    oldest_s: float | None
    latency: Latency
    newest_batch: int
    hours: Row
    disk: Room | None
    phase: Row
    circuit: Row | None
    replays: list[Row]


@dataclass(frozen=True, slots=True)
class View:
    """The account of all tenants, or of one.

    alerts: the open ones, critical ones first, then the newest. worst: the tenants with the most undelivered events.
    slow: tenants whose p95 is over the objective, the slowest first. slow_alerts: the tenants with an open alert for
    that; None: the platform as a whole.
    """

    tenant: str | None
    funnel: Funnel
    latency: Latency
    dead_letters: list[Row]
    exhausted_tenants: list[str]
    alerts: list[Row]
    worst: list[Row]
    slow: list[str]
    slow_alerts: list[str | None]

    @property
    def exhausted(self) -> int:
        return sum(letters["exhausted"] for letters in self.dead_letters)


def open_connection(settings: Settings) -> Conn:
    """A read-only connection."""
    more = "-c default_transaction_read_only=on"
    return connect(settings.database_url, "console", statement_timeout_s=_STATEMENT_S, lock_timeout_s=2, more=more)


def beginning(now: datetime) -> datetime:
    """The start of the page's counts: the start of the clock hour in which the last 60 minutes began."""
    return (now - timedelta(hours=1)).replace(minute=0, second=0, microsecond=0)


def read_platform(conn: Conn, settings: Settings, batches_lately: int) -> Platform:
    """batches_lately: about how many were accepted in the last five minutes."""
    now = datetime.now(UTC)
    latency, newest = read_latency(conn, batches_lately)
    oldest = _rows(conn, "oldest")
    circuit = _rows(conn, "circuit")
    return Platform(
        taken_at=now,
        since=beginning(now),
        queue=_rows(conn, "queue"),
        oldest_s=oldest[0]["oldest_s"] if oldest else None,
        latency=latency,
        newest_batch=newest,
        hours=_rows(conn, "hours")[0],
        disk=_disk(settings),
        phase=_rows(conn, "phase")[0],
        circuit=circuit[0] if circuit else None,
        replays=_rows(conn, "replays"),
    )


def _disk(settings: Settings) -> Room | None:
    try:
        return room_under(settings.home)
    except OSError:
        return None


def read_view(conn: Conn, settings: Settings, platform: Platform, tenant: str | None) -> View:
    """Read one view. NoSuchThingError if the tenant does not exist."""
    objective_ms = settings.objective_latency_p95_ms
    tenant_id = None if tenant is None else tenant_id_of(conn, tenant)
    funnel = funnel_of(conn, tenant, platform.since)
    selection = {"tenant_id": tenant_id, "limit": _ROWS}
    worst = _worst(funnel, old_is_production=platform.phase["is_shadow"]) if tenant is None else []
    names = [tenant]
    if tenant is None:
        # If latency is over the objective, the page names the slow tenants, so read all of them.
        is_late = (platform.latency.p95_ms or 0) > objective_ms
        names = [part.tenant for part in funnel.tenants] if is_late else [row["tenant"] for row in worst]
    lately = {row["tenant"]: row for row in _rows(conn, "tenant_latencies", tenants=names, events=_TENANT_EVENTS)}
    for row in worst:
        row["p95_ms"] = lately.get(row["tenant"], {}).get("p95_ms")
    own = lately.get(tenant or "", {})
    return View(
        tenant=tenant,
        funnel=funnel,
        latency=platform.latency
        if tenant is None
        else Latency(own.get("p50_ms"), own.get("p95_ms"), own.get("p99_ms")),
        dead_letters=_rows(conn, "dead_letters", **selection),
        exhausted_tenants=[row["tenant"] for row in _rows(conn, "exhausted_tenants")],
        alerts=_open_alerts(conn, settings, tenant),
        worst=worst,
        slow=sorted(
            (name for name, row in lately.items() if row["p95_ms"] > objective_ms),
            key=lambda name: -lately[name]["p95_ms"],
        ),
        slow_alerts=[row["tenant"] for row in _rows(conn, "slow_alerts")],
    )


def read_totals(conn: Conn, since: datetime) -> tuple[Numbers, dict[str, int]]:
    """The account's numbers of all tenants, and the events that each stage of the old pipeline passed on."""
    numbers = numbers_of(_rows(conn, "totals", since=since)[0])
    return numbers, {row["stage"]: row["proceeded"] for row in _rows(conn, "legacy_totals", since=since)}


def read_latency(conn: Conn, batches_lately: int) -> tuple[Latency, int]:
    """The latency of a sample of batches spread evenly over the last five minutes, and the newest batch's id."""
    newest = _rows(conn, "newest_batch")[0]["batch_id"]
    span = min(newest, max(batches_lately, _SAMPLED_BATCHES))
    ids = sorted({newest - span * place // _SAMPLED_BATCHES for place in range(_SAMPLED_BATCHES)})
    row = _rows(conn, "latency", batch_ids=ids)[0]
    return Latency(row["p50_ms"], row["p95_ms"], row["p99_ms"]), newest


def _open_alerts(conn: Conn, settings: Settings, tenant: str | None) -> list[Row]:
    found = list_alerts(conn, settings, tenant=tenant, limit=_ALERTS_MAX)
    return sorted(found, key=lambda alert: alert["severity"] != Severity.CRITICAL)


def _worst(funnel: Funnel, *, old_is_production: bool) -> list[Row]:
    """Unbalanced tenants first, then by missing events, also of the old pipeline while it is production."""
    old = {row["tenant"]: row for row in funnel.legacy_pipeline.tenants} if funnel.legacy_pipeline else {}
    rows: list[Row] = []
    for part in funnel.tenants:
        numbers, theirs = part.numbers, old.get(part.tenant)
        old_missing = None if not theirs or theirs["delivered"] is None else theirs["mirrored"] - theirs["delivered"]
        missing = numbers.rejected + numbers.dead_lettered + numbers.in_flight
        rows.append(
            {
                "tenant": part.tenant,
                "balanced": part.balanced,
                **numbers.totals(),
                "old_mirrored": theirs["mirrored"] if theirs else None,
                "old_missing": old_missing,
                "rank": (part.balanced, -(missing + (old_missing or 0 if old_is_production else 0)), -numbers.received),
            }
        )
    return sorted(rows, key=lambda row: row["rank"])[:_WORST]


def _rows(conn: Conn, query: str, **params: Any) -> list[Row]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL[query], params).fetchall()
