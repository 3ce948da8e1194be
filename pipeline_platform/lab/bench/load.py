"""The load: events of many tenants, sent over plain keep-alive HTTP at a steady rate."""

import asyncio
import json
import random
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from pipeline_platform.lab.bench.http_client import Connection
from pipeline_platform.tenants.write_keys import hash_write_key, new_write_key

_USERS = 2_000
_PAGES = ("/", "/pricing", "/docs", "/docs/queue", "/settings", "/reports/weekly", "/login")


@dataclass(slots=True)
class Sent:
    """The gateway's answers: events acknowledged, answers by status, milliseconds an answer took."""

    acknowledged: int = 0
    statuses: dict[int, int] = field(default_factory=dict[int, int])
    ack_ms: list[float] = field(default_factory=list[float])


def make_tenants(conn: psycopg.Connection[Any], count: int) -> list[str]:
    """Create `count` tenants, each with users whose traits are known; returns their write keys."""
    keys: list[str] = []
    for number in range(count):
        key = new_write_key()
        conn.execute(
            "WITH tenant AS (INSERT INTO control.tenants (name, plan) VALUES (%s, 'pro') RETURNING tenant_id) "
            "INSERT INTO control.write_keys (tenant_id, key_hash) SELECT tenant_id, %s FROM tenant",
            (f"bench-{number}", hash_write_key(key)),
        )
        keys.append(key)
    conn.execute(
        "INSERT INTO control.traits (tenant_id, kind, subject_id, name, value, as_of, event_id) "
        "SELECT tenant_id, 'user', 'user-' || n, 'plan', '\"pro\"', now(), gen_random_uuid() "
        "FROM control.tenants, generate_series(1, %s / %s) AS n",
        (_USERS, count),
    )
    return keys


def event_maker(tenants: int, seed: int) -> Callable[[], bytes]:
    """A function that makes one event of about 450 bytes, as JSON, with a new messageId."""
    choose = random.Random(seed)  # noqa: S311
    users = max(1, _USERS // tenants)
    templates: list[tuple[bytes, bytes]] = []
    for _ in range(500):
        body = {
            "type": "track",
            "event": choose.choice(("Feature Used", "Report Opened", "API Called")),
            "userId": f"user-{choose.randint(1, users)}",
            "timestamp": "2026-01-01T00:00:00.000Z",
            "properties": {
                "path": choose.choice(_PAGES),
                "ms": choose.randint(1, 900),
                "ok": True,
                "items": [1, 2],
            },
            "context": {
                "library": {"name": "bench", "version": "1.0"},
                "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Safari/537.36",
                "page": {"url": "https://app.example.com/reports/weekly", "referrer": ""},
            },
        }
        head, _, tail = json.dumps(body | {"messageId": "@"}).partition("@")
        templates.append((head.encode(), tail.encode()))

    def make() -> bytes:
        head, tail = choose.choice(templates)
        return head + str(uuid.UUID(bytes=secrets.token_bytes(16), version=4)).encode() + tail

    return make


async def send_steadily(
    port: int,
    keys: list[str],
    *,
    rate: float,
    batch: int,
    clients: int,
    seconds: float,
    seed: int,
    progress: Callable[[int], None],
) -> Sent:
    """Send `rate` events a second in requests of `batch`, from `clients` connections, for `seconds`.

    Each client has its own schedule. If an answer takes too long, the next request is sent late but not skipped.
    """
    make = event_maker(len(keys), seed)
    sent = Sent()
    interval_s = clients * batch / rate
    start = time.monotonic()

    async def run(number: int) -> None:
        client = Connection(port, "/v1/batch" if batch > 1 else "/v1/track")
        turn = start + interval_s * number / clients
        key = number
        while turn < start + seconds:
            await asyncio.sleep(max(0.0, turn - time.monotonic()))
            body = b'{"batch":[' + b",".join([make() for _ in range(batch)]) + b"]}" if batch > 1 else make()
            asked_at = time.perf_counter()
            status = await client.post(keys[key % len(keys)], body)
            sent.ack_ms.append((time.perf_counter() - asked_at) * 1000)
            sent.statuses[status] = sent.statuses.get(status, 0) + 1
            if status == 200:
                sent.acknowledged += batch
                progress(batch)
            key += clients
            turn += interval_s
        client.close()

    await asyncio.gather(*(run(number) for number in range(clients)))
    return sent
