"""Measures a replay in one run: the rates of diff and commit of a window, and the effect on live latency."""

import asyncio
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

import psycopg
from rich.progress import Progress

from pipeline_platform.db import connect, queries
from pipeline_platform.errors import PipelineError
from pipeline_platform.lab.bench.load import make_tenants, send_steadily
from pipeline_platform.lab.bench.runs import LATENCY, THROUGHPUT, Load, drain
from pipeline_platform.lab.bench.stack import Stack
from pipeline_platform.replay import report, steps
from pipeline_platform.replay.plan import Scope, make_plan

_SQL = queries("bench")
# Real time is 50 million events a day.
_REAL_TIME_PER_S = 50_000_000 / 86_400
# Rounds without and with a replay alternate, so that other load on the machine affects both.
_ROUNDS = 6
_LIVE_S = 12.0
_WARM_UP_S = 2.0
_HIGH_CAP = 0.5

Conn = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Beside:
    """Live p95 in ms during a replay at a cap, relative to that without one, and the events replayed meanwhile.

    p95_ms: the median of the rounds; ratio: the median of the rounds' ratios; ratios: all of them.
    """

    cap: float
    p95_ms: float
    ratio: float
    ratios: list[float]
    replayed: int


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The result: events, of which `changed` were altered before the replay.

    Seconds a step, at a cap of 1; live p95 in ms, without a replay and during one.
    """

    events: int
    changed: int
    diff_s: float
    commit_s: float
    unchanged_diff_s: float
    live_p95_ms: float
    besides: list[Beside]

    @property
    def per_s(self) -> float:
        return self.events / (self.diff_s + self.commit_s)

    @property
    def times_real_time(self) -> float:
        return self.per_s / _REAL_TIME_PER_S

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "per_s": self.per_s,
            "times_real_time": self.times_real_time,
            "day_of_50_million_s": 86_400 / self.times_real_time,
        }

    def text(self) -> str:
        return (
            f"replay: {self.events:,} events, {self.changed:,} of them mangled: diff {self.diff_s:.1f} s, commit "
            f"{self.commit_s:.1f} s: {self.per_s:,.0f} events/s, {self.times_real_time:.1f} times real time "
            f"(579 events/s); a day of 50 million takes {86_400 / self.times_real_time / 60:,.0f} min\n"
            f"  diff of the same events once nothing differs: {self.unchanged_diff_s:.1f} s\n"
            f"  live p95 at {LATENCY.rate:.0f} events/s: {self.live_p95_ms:.1f} ms"
            + "".join(
                f"; beside a replay at cap {beside.cap}: {beside.p95_ms:.1f} ms ({beside.ratio:.2f} times; by round "
                f"{', '.join(f'{ratio:.2f}' for ratio in beside.ratios)}), which did {beside.replayed:,} events"
                for beside in self.besides
            )
        )


def measure(stack: Stack, events: int, seed: int) -> ReplayResult:
    """Fill the queue, alter a tenth of the delivered events, replay; then run live load without and with a replay."""
    with connect(stack.settings.database_url, "bench", statement_timeout_s=0) as conn, Progress(transient=True) as bar:
        keys = make_tenants(conn, THROUGHPUT.tenants)
        task = bar.add_task("filling", total=events)
        start = datetime.now(UTC)
        seconds = events / THROUGHPUT.rate
        _send(stack, keys, THROUGHPUT, seconds, seed, lambda done: bar.advance(task, done))
        drain(conn)
        changed = conn.execute(_SQL["mangle"]).rowcount
        conn.execute("VACUUM ANALYZE")
        scope = Scope(start, datetime.now(UTC))
        bar.update(task, description="replaying", total=None)
        steps.limit_lane(conn, share=stack.settings.lane_shares["replay"], cap=1.0)
        replay_id, total, diff_s = _diff(conn, scope)
        commit_s = _commit(conn, replay_id)
        found = report.show(conn, replay_id)["committed"]
        if found["changed"] != changed or found["skipped"]:
            raise PipelineError(f"{changed} rows were mangled and {found} committed: the replay is wrong")
        again, _, unchanged_diff_s = _diff(conn, scope)
        steps.cancel(conn, again)
        bar.update(task, description="live load without and beside a replay")
        alone, besides = _beside_live(stack, conn, keys, scope, seed + 1)
        return ReplayResult(total, changed, diff_s, commit_s, unchanged_diff_s, alone, besides)


def _beside_live(stack: Stack, conn: Conn, keys: list[str], scope: Scope, seed: int) -> tuple[float, list[Beside]]:
    share, cap = stack.settings.lane_shares["replay"], stack.settings.lane_caps["replay"]
    alone: list[float] = []
    beside: dict[float, list[float]] = {cap: [], _HIGH_CAP: []}
    replayed = dict.fromkeys(beside, 0)
    for number in range(_ROUNDS):
        alone.append(_live(stack, conn, keys, seed + number))
        for one_cap in beside:
            steps.limit_lane(conn, min(share, one_cap), one_cap)
            with _replaying(stack, scope) as done:
                beside[one_cap].append(_live(stack, conn, keys, seed + number))
            replayed[one_cap] += done[0]
    return median(alone), [_compared(one_cap, p95s, alone, replayed[one_cap]) for one_cap, p95s in beside.items()]


def _compared(cap: float, beside: list[float], alone: list[float], replayed: int) -> Beside:
    ratios = [one / other for one, other in zip(beside, alone, strict=True)]
    return Beside(cap, median(beside), median(ratios), ratios, replayed)


def _send(
    stack: Stack, keys: list[str], load: Load, seconds: float, seed: int, progress: Callable[[int], None]
) -> None:
    asyncio.run(
        send_steadily(
            stack.gateway_port,
            keys,
            rate=load.rate,
            batch=load.batch,
            clients=load.clients,
            seconds=seconds,
            seed=seed,
            progress=progress,
        )
    )


def _diff(conn: Conn, scope: Scope) -> tuple[int, int, float]:
    plan = make_plan(conn, scope, "benchmark")
    begin = time.monotonic()
    steps.start_diff(conn, plan.replay_id)
    steps.wait(conn, plan.replay_id)
    return plan.replay_id, plan.events, time.monotonic() - begin


def _commit(conn: Conn, replay_id: int) -> float:
    begin = time.monotonic()
    steps.start_commit(conn, replay_id)
    steps.wait(conn, replay_id)
    return time.monotonic() - begin


def _live(stack: Stack, conn: Conn, keys: list[str], seed: int) -> float:
    start = datetime.now(UTC)
    _send(stack, keys, LATENCY, _LIVE_S, seed, lambda _: None)
    drain(conn)
    row = conn.execute(_SQL["live_p95"], (start, _WARM_UP_S)).fetchone()
    if row is None or row[0] is None:
        raise PipelineError("no live event was delivered")
    return float(row[0])


@contextmanager
def _replaying(stack: Stack, scope: Scope) -> Generator[list[int]]:
    """Run diffs of the window one after the other while the context is open; yields their event counts."""
    done, stop = [0], threading.Event()

    def run() -> None:
        with connect(stack.settings.database_url, "bench replay", statement_timeout_s=0) as conn:
            while not stop.is_set():
                replay_id = make_plan(conn, scope, "benchmark").replay_id
                steps.start_diff(conn, replay_id)
                while not stop.is_set() and steps.progress(conn, replay_id).state == "diffing":
                    time.sleep(0.2)
                done[0] += steps.progress(conn, replay_id).events_done
                steps.cancel(conn, replay_id)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()
