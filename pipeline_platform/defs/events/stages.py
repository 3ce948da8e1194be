"""The three stages of an hour: seal and count it, drain it, count what was delivered. Independent of runs.

Each returns the metadata of one partition, mostly numbers, which the UI plots over the hours. All read the project's
own account and keep no state, so an hour can be repeated safely.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import dagster as dg
import psycopg
from psycopg.rows import dict_row

from pipeline_platform.account.numbers import delivery_rate
from pipeline_platform.db import queries
from pipeline_platform.defs.hours import HOUR
from pipeline_platform.defs.summaries import look_further, markdown_table
from pipeline_platform.defs.tables import tenant_table
from pipeline_platform.errors import NotNowError
from pipeline_platform.settings import Settings
from pipeline_platform.worker.drain import drain_hour

Metadata = Mapping[str, Any]
Conn = psycopg.Connection[Any]

_SQL = queries("control_plane")
_PAUSE_S = 0.2


def accept_stage(conn: Conn, settings: Settings, hour: datetime) -> Metadata:
    """Seal the hour and count what was received. NotNowError if it is not over or is being written."""
    state = _sealed(conn, hour, settings.hour_wait_s)
    tenants = _account(conn, hour)
    metadata: dict[str, Any] = _totals(tenants, ("received", "accepted", "rejected")) | {"tenants": len(tenants)}
    columns = ["received", "accepted", "rejected"]
    if state and state["dropped_at"] is None:
        batches = _rows(conn, "batches_of_hour", {"hour": hour})[0]
        sizes = {row["tenant_id"]: row["bytes"] for row in _rows(conn, "bytes_of_hour", {"hour": hour})}
        tenants = [row | {"bytes": sizes.get(row["tenant_id"], 0)} for row in tenants]
        metadata |= {
            "batches": batches["batches"],
            "bytes": sum(sizes.values()),
            "stored_bytes": batches["stored_bytes"],
        }
        columns.append("bytes")
    if state:
        metadata |= {"seals": state["seals"], "sealed_at": dg.MetadataValue.timestamp(state["sealed_at"])}
        if state["dropped_at"]:
            metadata["batches_dropped_at"] = dg.MetadataValue.timestamp(state["dropped_at"])
    sealed = ", sealed" if state else ""
    words = (
        f"{metadata['received']:,} received of {len(tenants)} tenants: {metadata['accepted']:,} accepted, "
        f"{metadata['rejected']:,} rejected{sealed}."
    )
    why = "`pipeline-platform quarantine list` says why events were rejected."
    return {
        "result": words,
        "summary": _words(settings, why, "inspect-the-quarantine"),
        **metadata,
        "by_tenant": tenant_table(tenants, columns),
    }


def enrich_stage(conn: Conn, settings: Settings, hour: datetime) -> Metadata:
    """Process the remaining work of the hour, as a worker would. NotNowError if a worker holds some of it."""
    here = drain_hour(settings, hour, wait_s=settings.hour_wait_s)
    tenants = _account(conn, hour)
    columns = ("claimed", "enriched", "in_flight")
    totals = _totals(tenants, columns)
    words = (
        f"{totals['enriched']:,} of {totals['claimed']:,} claimed events enriched, {totals['in_flight']:,} in "
        f"flight. This run found {here.claimed:,} that the workers had left."
    )
    return {
        "result": words,
        "summary": _words(settings, "", "finish-hours-in-dagster"),
        **totals,
        "claimed_by_this_run": here.claimed,
        "dead_lettered_by_this_run": here.dead_lettered,
        "by_tenant": tenant_table(tenants, columns),
    }


def deliver_stage(conn: Conn, settings: Settings, hour: datetime) -> Metadata:
    """Count the outcomes of the hour's events and their latency, from received_at to the delivering commit.

    Latencies are missing if nothing but imported events was delivered: their received_at is in the past.
    """
    tenants = _account(conn, hour)
    outcomes = ("delivered", "duplicate", "dead_lettered", "discarded", "in_flight")
    wanted = {"hour": hour, "tenant_ids": [row["tenant_id"] for row in tenants]}
    found = {row["tenant_id"]: row["percentile_disc"] for row in _rows(conn, "latency_of_hour", wanted)}
    overall = _latencies(found.get(None))
    totals = _totals(tenants, outcomes)
    rate = delivery_rate(totals["delivered"] + totals["duplicate"], sum(totals.values()) - totals["discarded"])
    tenants = [row | _latencies(found.get(row["tenant_id"])) for row in tenants]
    return {
        "result": _delivered(totals, rate, overall),
        "summary": _words(settings, markdown_table(["outcome", "events"], list(totals.items())), "handle-dead-letters"),
        **totals,
        **({} if rate is None else {"delivery_rate": rate}),
        **{name: value for name, value in overall.items() if value is not None},
        "by_tenant": tenant_table(tenants, (*outcomes, *overall)),
    }


def _delivered(totals: Mapping[str, int], rate: float | None, overall: Mapping[str, float | None]) -> str:
    if rate is None:
        return "Nothing was accepted."
    waits = ", ".join(
        f"{name.removesuffix('_ms')} {value:,.0f} ms" for name, value in overall.items() if value is not None
    )
    latency = f" From acceptance to delivery: {waits}." if waits else ""
    return f"{rate:.4%} delivered: {', '.join(f'{events:,} {name}' for name, events in totals.items())}.{latency}"


def _words(settings: Settings, words: str, page: str) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(f"{words}\n\n{look_further(settings, page)}".strip())


def _sealed(conn: Conn, hour: datetime, wait_s: float) -> dict[str, Any] | None:
    """The hour's state once it is sealed; None if it does not exist because nothing was received in it."""
    deadline = time.monotonic() + wait_s
    while True:
        found = _rows(conn, "hour_state", {"hour": hour})
        if not found:
            return None
        sealed, under_way = conn.execute(_SQL["seal_hour"], {"hour": hour}).fetchone() or (False, False)
        if sealed:
            return _rows(conn, "hour_state", {"hour": hour})[0]
        if under_way:
            raise NotNowError(
                f"the hour {hour:%Y-%m-%d %H}:00 is not over, so it cannot be sealed; its events are "
                f"delivered all the same. Materialize it after {hour + HOUR:%H}:00 UTC, or leave it to the sensor "
                "sealed_hours"
            )
        if time.monotonic() > deadline:
            raise NotNowError(
                f"the hour {hour:%Y-%m-%d %H}:00 is still being written after {wait_s:g} s, by an import or "
                "another open transaction. Materialize it again when `pipeline-platform import` has ended"
            )
        time.sleep(_PAUSE_S)


def _rows(conn: Conn, query: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL[query], params).fetchall()


def _account(conn: Conn, hour: datetime) -> list[dict[str, Any]]:
    """The hour's funnel: one row for each tenant over all lanes, the largest first."""
    return _rows(conn, "account_of_hour", {"hour": hour})


def _totals(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    return {name: sum(row[name] for row in rows) for name in names}


def _latencies(values: Sequence[float] | None) -> dict[str, float | None]:
    names = ("p50_ms", "p95_ms", "p99_ms", "max_ms")
    return {
        name: None if value is None else round(value, 1)
        for name, value in zip(names, values or [None] * 4, strict=True)
    }
