"""The simulated old pipeline: it loses by its own mechanisms, and counts what it loses."""

import asyncio
import json
import time
import uuid
from typing import Any

import aiohttp
import psycopg
import pytest

from pipeline_platform.event.types import event_id_of
from pipeline_platform.migration.simulation.capacity import PEAK_FACTOR
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.simulation import LegacyPipeline
from pipeline_platform_tests.support.tenants import add_tenants

Conn = psycopg.Connection[Any]
_CAPACITY = 200.0


def _event(number: int) -> dict[str, Any]:
    return {"type": "track", "event": "Clicked", "messageId": str(uuid.uuid4()), "userId": f"u{number % 9}"}


async def _drive(url: str, tenant_id: int, per_s: float, seconds: float) -> int:
    """Requests of 4 events at a steady rate; how many events were sent."""
    sent = 0
    start = time.monotonic()
    waiting: set[asyncio.Task[None]] = set()
    async with aiohttp.ClientSession(headers={"X-Pipeline-Tenant-Id": str(tenant_id)}) as session:

        async def post(events: list[dict[str, Any]]) -> None:
            async with session.post(url, json={"batch": events}) as answer:
                assert answer.status in (200, 429)

        while (passed := time.monotonic() - start) < seconds:
            while sent + 4 <= passed * per_s:
                waiting.add(asyncio.create_task(post([_event(sent + place) for place in range(4)])))
                sent += 4
            await asyncio.sleep(0.005)
        await asyncio.gather(*waiting)
    return sent


def _stages(conn: Conn) -> dict[str, tuple[int, int, int]]:
    rows = conn.execute(
        "SELECT stage, sum(arrived)::int, sum(proceeded)::int, sum(failed)::int FROM legacy.stage_counts GROUP BY stage"
    )
    return {stage: (arrived, proceeded, failed) for stage, arrived, proceeded, failed in rows}


@pytest.mark.parametrize("load", [0.5, PEAK_FACTOR])
def test_it_loses_nothing_at_low_load_and_much_at_its_peak(conn: Conn, settings: Settings, load: float) -> None:
    (tenant,) = add_tenants(conn, "acme")
    with LegacyPipeline(settings, capacity_per_s=_CAPACITY) as legacy:
        sent = asyncio.run(_drive(legacy.url, tenant.tenant_id, _CAPACITY * load, 12 if load > 1 else 4))
        legacy.await_idle(conn)
    stages = _stages(conn)
    delivered = conn.execute("SELECT count(*), count(DISTINCT event_id) FROM legacy.events").fetchone()
    assert delivered and delivered[0] == delivered[1] == stages["write"][1]
    lost = sum(failed for _, _, failed in stages.values())
    assert conn.execute("SELECT count(*) FROM legacy.losses").fetchone() == (lost,)
    assert stages["gateway"][0] == sent == delivered[0] + lost
    for earlier, later in (("gateway", "queue"), ("queue", "lookup"), ("lookup", "write")):
        assert stages[earlier][1] == stages[later][0]
    if load < 1:
        assert lost == 0
    else:
        assert 0.6 < delivered[0] / sent < 0.97
        assert stages["lookup"][2] > 0.35 * lost


def test_what_is_sent_twice_is_stored_twice(conn: Conn, settings: Settings) -> None:
    (tenant,) = add_tenants(conn, "acme")
    body = {"batch": [_event(1) | {"timestamp": "2026-01-02T03:04:05Z", "properties": {"n": 1.50}}]}
    with LegacyPipeline(settings) as legacy:
        asyncio.run(_post_twice(legacy.url, tenant.tenant_id, body))
        legacy.await_idle(conn)
    rows = conn.execute(
        "SELECT message_id, name, user_id, occurred_at::text, properties::text FROM legacy.output"
    ).fetchall()
    assert rows == [(body["batch"][0]["messageId"], "Clicked", "u1", "2026-01-02 03:04:05+00", '{"n": 1.5}')] * 2


def test_events_are_read_as_the_platform_reads_them(conn: Conn, settings: Settings) -> None:
    (tenant,) = add_tenants(conn, "acme")
    body = {
        "batch": [
            {"type": "track", "event": 5, "messageId": 12, "userId": 7.50, "context": {"ip": "1.1.1.1", "groupId": 3}},
            {"type": "identify", "messageId": "b", "userId": "u", "originalTimestamp": "2026-01-02T09:09:09Z",
             "timestamp": "2026-01-02T03:04:05Z", "context": {"traits": {"n": 1}}},
        ],
        "context": {"ip": "0.0.0.0", "library": {"name": "sdk"}},
    }  # fmt: skip
    with LegacyPipeline(settings) as legacy:
        asyncio.run(_post_twice(legacy.url, tenant.tenant_id, body))
        legacy.await_idle(conn)
    found = conn.execute(
        "SELECT message_id, event_id, name, user_id, group_id, context FROM legacy.output WHERE type = 'track'"
    ).fetchall()
    context = {"ip": "1.1.1.1", "library": {"name": "sdk"}, "groupId": 3}
    assert found == [("12", event_id_of("12"), "5", "7.5", "3", context)] * 2
    found = conn.execute(
        "SELECT occurred_at::text, traits, context FROM legacy.output WHERE type = 'identify'"
    ).fetchall()
    assert found == [("2026-01-02 03:04:05+00", {"n": 1}, body["context"] | {"traits": {"n": 1}})] * 2
    assert conn.execute("SELECT count(*) FROM legacy.losses").fetchone() == (0,)


async def _post_twice(url: str, tenant_id: int, body: dict[str, Any]) -> None:
    async with aiohttp.ClientSession(headers={"X-Pipeline-Tenant-Id": str(tenant_id)}) as session:
        for _ in range(2):
            async with session.post(url, data=json.dumps(body)) as answer:
                assert answer.status == 200


def test_a_killed_function_process_loses_what_it_had_and_the_rest_goes_on(conn: Conn, settings: Settings) -> None:
    (tenant,) = add_tenants(conn, "acme")
    with LegacyPipeline(settings, capacity_per_s=_CAPACITY) as legacy:
        sent = asyncio.run(_drive(legacy.url, tenant.tenant_id, _CAPACITY * 0.8, 1.5))
        legacy.kill("legacy-functions")
        legacy.start("legacy-functions", ["pipeline_platform.migration.simulation", "functions"])
        legacy.await_idle(conn)
    row = conn.execute("SELECT count(*) FROM legacy.events").fetchone()
    assert row and 0 < row[0] < sent
    # What it had in hand, whether written or not, is counted once its visibility time-out has passed; at this load
    # other stages may lose some too.
    stages = _stages(conn)
    assert stages["queue"][2] > 0
    assert sum(failed for _, _, failed in stages.values()) >= sent - row[0]
