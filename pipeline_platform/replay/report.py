"""A replay, the result of its diff and the result of its commit, as one JSON object."""

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipeline_platform.db import queries
from pipeline_platform.replay.steps import progress

_SQL = queries("replay")
_SAMPLES = 3
_SHOWN = ("replay_id", "state", "is_paused", "paused_because", "window_start", "window_end", "tenants", "types",
          "only_missing", "planned_events", "transform_from", "transform_to", "actor", "reason", "created_at",
          "diffed_at", "committed_at", "undone_at", "pruned_at")  # fmt: skip

Conn = psycopg.Connection[Any]


def show(conn: Conn, replay_id: int) -> dict[str, Any]:
    """A replay, its progress and, after a diff, its totals. NoSuchThingError if there is none."""
    now = progress(conn, replay_id)
    [replay] = _rows(conn, "one", replay_id)
    return {
        **{name: replay[name] for name in _SHOWN},
        "progress": now.to_json(),
        "totals": _one(conn, "totals", replay_id),
        "committed": _one(conn, "committed", replay_id),
        "skipped": _rows(conn, "skipped", replay_id),
        "undo": _one(conn, "restored", replay_id),
        "unswept_hours": [row["hour"] for row in _rows(conn, "unswept", replay_id)],
    }


def diff(conn: Conn, replay_id: int) -> dict[str, Any]:
    """`show` with the diff by tenant, hour and field, and samples with the current and the replayed values."""
    return {
        **show(conn, replay_id),
        "tenants_found": _rows(conn, "by_tenant", replay_id),
        "hours": _rows(conn, "by_hour", replay_id),
        "fields": _rows(conn, "fields", replay_id),
        "samples": _rows(conn, "samples", replay_id, samples=_SAMPLES),
    }


def list_replays(conn: Conn, limit: int) -> list[dict[str, Any]]:
    """The newest replays."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL["list"], {"limit": limit}).fetchall()


def differs(totals: Mapping[str, int]) -> int:
    """Rows that a commit would touch."""
    return totals["added"] + totals["changed"] + totals["removed"]


def _rows(conn: Conn, query: str, replay_id: int, **more: Any) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL[query], {"replay_id": replay_id, **more}).fetchall()


def _one(conn: Conn, query: str, replay_id: int) -> dict[str, Any]:
    return _rows(conn, query, replay_id)[0]
