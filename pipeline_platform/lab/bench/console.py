"""The CPU cost of the console while 400 tenants send, with no viewer, one or many.

One loop reads for all viewers, so a viewer should add only the cost of sending the changes.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from pipeline_platform.db import connect
from pipeline_platform.errors import PipelineError
from pipeline_platform.lab.bench.load import make_tenants, send_steadily
from pipeline_platform.lab.bench.stack import Stack
from pipeline_platform.local.services.process import free_port, log_tail, spawn, stop

_TENANTS = 400
_RATE = 1_000.0
_VIEWERS = (0, 1, 10, 50)
_BATCH, _CLIENTS = 5, 20
_READY_S = 30.0
# Warm-up: viewers connect, and the first page is rendered.
_SETTLE_S = 3.0
_TARGET_PERCENT = 5.0


@dataclass(frozen=True, slots=True)
class Look:
    """One measured interval of `seconds`: per cent of a core, messages and kilobytes a second and viewer."""

    viewers: int
    seconds: float
    cpu_percent: float
    messages_per_s: float
    kb_per_s: float


@dataclass(frozen=True, slots=True)
class ConsoleResult:
    """All intervals, under one load. Rates in events a second."""

    offered_per_s: float
    acknowledged: int
    tenants: int
    looks: list[Look]

    @property
    def is_cheap(self) -> bool:
        return all(look.cpu_percent < _TARGET_PERCENT for look in self.looks)

    def text(self) -> str:
        lines = [f"console: {self.tenants} tenants, {self.offered_per_s:,.0f} events/s, {self.acknowledged:,} sent"]
        lines += [
            f"  {look.viewers:>3} viewers: {look.cpu_percent:.1f}% of a core; "
            f"each gets {look.messages_per_s:.1f} messages and {look.kb_per_s:.1f} kB a second"
            for look in self.looks
        ]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "is_cheap": self.is_cheap}


def measure(stack: Stack, seconds: float, seed: int) -> ConsoleResult:
    """Measure for `seconds` in total, in equal intervals."""
    port = free_port()
    home = stack.settings.home
    env = os.environ | {
        "PIPELINE_HOME": str(home),
        "PIPELINE_DATABASE_URL": stack.settings.database_url,
        "PIPELINE_REDIS_URL": stack.settings.redis_url,
    }
    log = home / "logs" / "console.log"
    command = [sys.executable, "-m", "pipeline_platform.watch.console", "--port", str(port)]
    with connect(stack.settings.database_url, "bench") as conn:
        keys = make_tenants(conn, _TENANTS)
    child = spawn(command, log=log, cwd=Path.cwd(), env=env)
    try:
        return asyncio.run(_measure(stack, keys, psutil.Process(child.pid), port, log, seconds, seed))
    finally:
        stop(child, signal.SIGTERM, 10.0)


async def _measure(
    stack: Stack, keys: list[str], process: psutil.Process, port: int, log: Path, seconds: float, seed: int
) -> ConsoleResult:
    url = f"http://127.0.0.1:{port}"
    await _until_serving(url, log)
    stretch_s = seconds / len(_VIEWERS)
    load = asyncio.create_task(
        send_steadily(
            stack.gateway_port, keys, rate=_RATE, batch=_BATCH, clients=_CLIENTS,
            seconds=seconds + (_SETTLE_S + 1) * len(_VIEWERS), seed=seed, progress=lambda _events: None,
        )
    )  # fmt: skip
    looks = [await _look(url, process, viewers, stretch_s) for viewers in _VIEWERS]
    sent = await load
    return ConsoleResult(_RATE, sent.acknowledged, _TENANTS, looks)


async def _look(url: str, process: psutil.Process, viewers: int, seconds: float) -> Look:
    async with _watching(url, viewers) as seen:
        await asyncio.sleep(_SETTLE_S)
        messages, size = seen
        cpu_s, begun = _cpu_s(process), time.monotonic()
        await asyncio.sleep(seconds)
        took = time.monotonic() - begun
        percent = 100 * (_cpu_s(process) - cpu_s) / took
        got, got_size = seen[0] - messages, seen[1] - size
    each = max(1, viewers) * took
    return Look(viewers, took, percent, got / each, got_size / each / 1_000)


@asynccontextmanager
async def _watching(url: str, viewers: int) -> AsyncGenerator[list[int]]:
    """Open `viewers` pages; yields the messages and the bytes that all of them have received."""
    seen = [0, 0]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=None, trust_env=False) as client:  # noqa: S113

        async def watch() -> None:
            async with client.stream("GET", f"{url}/events") as answer:
                answer.raise_for_status()
                async for piece in answer.aiter_bytes():
                    seen[0] += piece.count(b"event: sections")
                    seen[1] += len(piece)

        tasks = [asyncio.create_task(watch()) for _ in range(viewers)]
        yield seen
        ended = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if ended:
        raise PipelineError(f"{len(ended)} of {viewers} viewers were sent away")


async def _until_serving(url: str, log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    async with httpx.AsyncClient(trust_env=False) as client:
        while time.monotonic() < deadline:
            try:
                if (await client.get(f"{url}/healthz")).is_success:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.1)
    raise PipelineError(f"the console does not serve after {_READY_S:.0f} s: {log_tail(log)}")


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
