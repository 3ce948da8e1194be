"""The benchmarks: the load that is offered, and the results read from the database afterwards."""

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import Any

import psycopg
from rich.progress import Progress

from pipeline_platform.db import connect, queries
from pipeline_platform.errors import PipelineError
from pipeline_platform.lab.bench.load import Sent, make_tenants, send_steadily
from pipeline_platform.lab.bench.stack import Stack

_SQL = queries("bench")
_DRAIN_S = 120.0
# The first seconds warm up plans, caches and connections.
_WARM_UP_S = 3.0


@dataclass(frozen=True, slots=True)
class Load:
    """The load of a benchmark: events a second in requests of `batch`, from `clients` connections of `tenants`."""

    name: str
    rate: float
    batch: int
    clients: int
    tenants: int


LATENCY = Load("latency", rate=600, batch=1, clients=60, tenants=400)
THROUGHPUT = Load("throughput", rate=16_000, batch=100, clients=16, tenants=400)


@dataclass(frozen=True, slots=True)
class BenchResult:
    """The result of one run. Rates in events a second, latencies in milliseconds."""

    name: str
    offered_per_s: float
    seconds: float
    tenants: int
    clients: int
    batch_events: int
    acknowledged: int
    accepted: int
    delivered: int
    duplicate: int
    dead_lettered: int
    sustained_per_s: float
    drain_s: float
    ack_p50_ms: float
    ack_p95_ms: float
    commit_to_commit_p50_ms: float
    commit_to_commit_p95_ms: float
    commit_to_commit_p99_ms: float
    statuses: dict[int, int]
    seed: int

    @property
    def all_delivered(self) -> bool:
        return self.acknowledged == self.accepted == self.delivered

    def text(self) -> str:
        """The load and the result as text."""
        return (
            f"{self.name}: {self.offered_per_s:,.0f} events/s offered for {self.seconds:.0f} s in requests of "
            f"{self.batch_events}, {self.clients} clients, {self.tenants} tenants\n"
            f"  acknowledged {self.acknowledged:,}, accepted {self.accepted:,}, delivered {self.delivered:,}; "
            f"answers {self.statuses}\n"
            f"  sustained {self.sustained_per_s:,.0f} events/s; queue empty {self.drain_s:.1f} s after the load\n"
            f"  acknowledgement p50 {self.ack_p50_ms:.1f} ms, p95 {self.ack_p95_ms:.1f} ms\n"
            f"  commit of acceptance to commit of delivery p50 {self.commit_to_commit_p50_ms:.1f} ms, "
            f"p95 {self.commit_to_commit_p95_ms:.1f} ms, p99 {self.commit_to_commit_p99_ms:.1f} ms"
        )


def run_load(stack: Stack, load: Load, *, rate: float, seconds: float, seed: int) -> BenchResult:
    """Offer a steady load, wait until all is processed, and read the account and the commit times."""
    with connect(stack.settings.database_url, "bench", statement_timeout_s=0) as conn:
        keys = make_tenants(conn, load.tenants)
        with Progress(transient=True) as bar:
            task = bar.add_task(load.name, total=int(rate * seconds))
            sent = asyncio.run(
                send_steadily(
                    stack.gateway_port,
                    keys,
                    rate=rate,
                    batch=load.batch,
                    clients=load.clients,
                    seconds=seconds,
                    seed=seed,
                    progress=lambda events: bar.advance(task, events),
                )
            )
        drain_s = drain(conn)
        return _result(conn, load, sent, drain_s, rate, seconds, seed)


def drain(conn: psycopg.Connection[Any]) -> float:
    """Wait until the queue is empty; returns the seconds waited. PipelineError after two minutes."""
    start = time.monotonic()
    while time.monotonic() - start < _DRAIN_S:
        row = conn.execute("SELECT count(*) FROM queue.work").fetchone()
        if row == (0,):
            return time.monotonic() - start
        time.sleep(0.05)
    raise PipelineError(f"the queue was not empty {_DRAIN_S:.0f} s after the load ended")


def _result(
    conn: psycopg.Connection[Any],
    load: Load,
    sent: Sent,
    drain_s: float,
    rate: float,
    seconds: float,
    seed: int,
) -> BenchResult:
    accepted, delivered, duplicate, dead_lettered, in_flight = _row(conn, "outcome", ())
    if in_flight:
        raise PipelineError(f"{in_flight} events are in flight though the queue is empty: the account is wrong")
    _, percentiles = _row(conn, "latencies", (_WARM_UP_S,))
    (span_s,) = _row(conn, "delivery_span", ())
    cuts = statistics.quantiles(sent.ack_ms, n=20)
    return BenchResult(
        name=load.name,
        offered_per_s=rate,
        seconds=seconds,
        tenants=load.tenants,
        clients=load.clients,
        batch_events=load.batch,
        acknowledged=sent.acknowledged,
        accepted=accepted,
        delivered=delivered,
        duplicate=duplicate,
        dead_lettered=dead_lettered,
        sustained_per_s=delivered / span_s,
        drain_s=drain_s,
        ack_p50_ms=cuts[9],
        ack_p95_ms=cuts[18],
        commit_to_commit_p50_ms=percentiles[0],
        commit_to_commit_p95_ms=percentiles[1],
        commit_to_commit_p99_ms=percentiles[2],
        statuses=sent.statuses,
        seed=seed,
    )


def _row(conn: psycopg.Connection[Any], query: str, params: tuple[Any, ...]) -> tuple[Any, ...]:
    row = conn.execute(_SQL[query], params).fetchone()
    if row is None:
        raise PipelineError(f"{query} returned nothing")
    return row
