"""Sends one act's traffic to the gateway, as a separate process: `python -m pipeline_platform.lab.demo.sender`.

Its order is one JSON object on standard input. Its progress and its result are JSON lines on standard output. Each
request is sent when it is due, or as soon after as a connection is free. Nothing is sent twice: events that were not
acknowledged are counted and not retried.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import uvloop

from pipeline_platform.lab.bench.http_client import Connection
from pipeline_platform.lab.demo.traffic import Request, acts, requests

_CONNECTIONS = 32
_ANSWER_LIMIT_S = 15.0
_REPORT_EVERY_S = 0.25


@dataclass(slots=True)
class _Tally:
    sent: int = 0
    acknowledged: int = 0
    statuses: dict[str, int] = field(default_factory=dict[str, int])
    late_ms_max: float = 0.0

    def note(self, request: Request, status: str) -> None:
        self.sent += request.events
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if status == "200":
            self.acknowledged += request.events


def main() -> None:
    """Read the order, play the act, print the result. Ends when its output pipe is closed."""
    order = json.load(sys.stdin)
    stretches = acts(order["peak_factor"], order["scale"])[order["act"]]
    # All requests are built before the first is due: building them later would delay sending.
    planned = list(requests(stretches, order["capacity_per_s"], order["seed"]))
    tally = _Tally()
    begun_at = time.time()
    uvloop.run(_play(planned, order["port"], order["write_keys"], tally))
    spans: dict[str, list[float]] = {}
    begin = begun_at
    for stretch in stretches:
        spans[stretch.name] = [begin, begin + stretch.seconds]
        begin += stretch.seconds
    _say(tally, statuses=tally.statuses, stretches=spans)


async def _play(planned: list[Request], port: int, write_keys: list[str], tally: _Tally) -> None:
    waiting = iter(planned)
    start = time.monotonic()
    reporter = asyncio.create_task(_report(tally))
    await asyncio.gather(*(_connection(waiting, start, port, write_keys, tally) for _ in range(_CONNECTIONS)))
    if planned:
        # An act lasts as long as planned, even if its last request is answered earlier.
        await asyncio.sleep(max(0.0, start + planned[-1].at_s - time.monotonic()))
    reporter.cancel()


async def _connection(
    waiting: Iterator[Request], start: float, port: int, write_keys: list[str], tally: _Tally
) -> None:
    """Take the next request, wait until it is due, and send it; repeat until there is none."""
    connection = Connection(port, "/v1/batch")
    for request in waiting:
        due = start + request.at_s
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tally.late_ms_max = max(tally.late_ms_max, (time.monotonic() - due) * 1000)
        try:
            async with asyncio.timeout(_ANSWER_LIMIT_S):
                status = str(await connection.post(write_keys[request.tenant], request.body))
        except (OSError, EOFError, TimeoutError) as error:
            status = type(error).__name__
        tally.note(request, status)
    connection.close()


async def _report(tally: _Tally) -> None:
    while True:
        _say(tally)
        await asyncio.sleep(_REPORT_EVERY_S)


def _say(tally: _Tally, **more: Any) -> None:
    line = {"sent": tally.sent, "acknowledged": tally.acknowledged, "late_ms_max": round(tally.late_ms_max, 1), **more}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
