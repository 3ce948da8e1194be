"""The platform's own health: gates check it before a cutover, the watch checks it afterwards."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipeline_platform.db import queries
from pipeline_platform.settings import Settings

_SQL = queries("cutover")
Conn = psycopg.Connection[Any]

_WORK_AGE_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a phase. remedy: what to do while it is not met."""

    name: str
    is_met: bool
    found: str
    remedy: str = ""


def row_of(conn: Conn, query: str, **params: Any) -> dict[str, Any]:
    """The single row of a query in sql/queries/cutover.sql, by column."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL[query], params).fetchone() or {}


def health(conn: Conn, settings: Settings, since: datetime | None = None) -> list[Condition]:
    """The platform's health conditions. Dead letters and latency count only after `since`."""
    letters = row_of(conn, "dead_letters", since=since)["count"]
    lag = row_of(conn, "lag", since=since)
    unbalanced = row_of(conn, "unbalanced")["count"]
    p95_ms = lag["p95_ms"]
    return [
        Condition(
            "dead letters", letters == 0, f"{letters:,} unresolved",
            "pipeline-platform dead-letters list, then redrive or discard",
        ),
        Condition(
            "lag", lag["oldest_s"] < _WORK_AGE_S_MAX, f"the oldest waiting event is {lag['oldest_s']:.1f} s old",
            "pipeline-platform status; more workers: pipeline-platform up --workers N",
        ),
        Condition(
            "latency", p95_ms is None or p95_ms <= settings.latency_p95_ms_max,
            "nothing was delivered lately" if p95_ms is None else f"p95 {p95_ms:.1f} ms in the last 5 minutes",
            f"at most {settings.latency_p95_ms_max:.0f} ms (PIPELINE_LATENCY_P95_MS_MAX)",
        ),
        Condition(
            "account", unbalanced == 0, "balances" if not unbalanced else f"{unbalanced} parts do not balance",
            "pipeline-platform audit",
        ),
    ]  # fmt: skip
