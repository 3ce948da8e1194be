"""Promise: whatever the old pipeline does, every event is acknowledged and delivered as if there were none."""

import random
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from pipeline_platform.event.types import event_id_of
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.client import Client
from pipeline_platform_tests.support.ledger import Ledger, account_faults
from pipeline_platform_tests.support.legacy_server import legacy_server
from pipeline_platform_tests.support.migration import open_epoch, point_mirror
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.simulation import LegacyPipeline
from pipeline_platform_tests.support.tenants import add_tenants
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]
_REQUESTS = 150


@contextmanager
def silent() -> Iterator[str]:
    """Takes connections into its backlog and never says anything, like a frozen process."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1/batch"


@contextmanager
def refusing() -> Iterator[str]:
    """Answers 503 to everything."""
    with legacy_server(503) as old:
        yield old.url


@contextmanager
def absent() -> Iterator[str]:
    """Nobody listens."""
    with silent() as url:
        pass
    yield url


@pytest.mark.parametrize(("failing", "stage"), [(silent, "mirror"), (absent, "mirror"), (refusing, "gateway")])
def test_an_old_pipeline_that_fails_changes_no_answer(
    settings: Settings, conn: Conn, seed: int, failing: Any, stage: str
) -> None:
    rng, ledger = random.Random(seed), Ledger(seed)
    tenants = add_tenants(conn, "a", "b", "c")
    open_epoch(conn, "platform_primary")
    mirror = LegacyPipeline(settings)
    with failing() as url, Platform(settings) as platform:
        point_mirror(settings, url, timeout_s=0.5)
        platform.start_workers()
        platform.start_gateway()
        mirror.start_mirror()
        try:
            clients = {tenant: Client(platform.port, tenant.write_key) for tenant in tenants}
            for _ in range(_REQUESTS):
                tenant = rng.choice(tenants)
                events = [ledger.event(tenant, rng) for _ in range(rng.randrange(1, 6))]
                answer = clients[tenant].send(events)
                # Not one of them has to be sent again.
                assert (answer.outcome, answer.accepted) == ("acknowledged", len(events))
                ledger.note(tenant, events, "acknowledged")
            platform.await_drained(conn)
            wait_for("the mirror to be through", lambda: waiting(conn) == 0, 60)
        finally:
            mirror.__exit__(None, None, None)
    assert ledger.judge(conn).faultless, f"repeat with PIPELINE_TEST_SEED={seed}"
    assert lost_at(conn) == {stage: ledger.acknowledged}
    assert counted(conn, "mirror") == ledger.acknowledged


@pytest.mark.parametrize("place", ["mirror.before_send", "mirror.after_send", "mirror.before_record"])
def test_a_mirror_that_dies_under_load_sends_nothing_twice_and_counts_all(
    settings: Settings, conn: Conn, seed: int, place: str
) -> None:
    rng, ledger = random.Random(seed), Ledger(seed)
    tenants = add_tenants(conn, "a", "b")
    open_epoch(conn, "shadow")
    mirror = LegacyPipeline(settings)
    with legacy_server() as old, Platform(settings) as platform:
        point_mirror(settings, old.url)
        platform.start_workers()
        platform.start_gateway()
        clients = {tenant: Client(platform.port, tenant.write_key) for tenant in tenants}
        try:
            for _ in range(3):
                mirror.start_mirror(f"{place}:{rng.randrange(1, 8)}")
                while mirror.processes["mirror"].poll() is None:
                    tenant = rng.choice(tenants)
                    events = [ledger.event(tenant, rng) for _ in range(rng.randrange(1, 6))]
                    assert clients[tenant].send(events).outcome == "acknowledged"
                    ledger.note(tenant, events, "acknowledged")
            mirror.start_mirror()
            platform.await_drained(conn)
            wait_for("the mirror to be through", lambda: waiting(conn) == 0, 60)
        finally:
            mirror.__exit__(None, None, None)
    again = f"repeat with PIPELINE_TEST_SEED={seed}"
    assert not account_faults(conn), again
    came = old.events
    assert len(came) == len(set(came)), again
    assert counted(conn, "mirror") == ledger.acknowledged, again
    # What it counts as lost it names, each event once; all else came.
    lost = conn.execute("SELECT event_id FROM legacy.losses WHERE stage = 'mirror'").fetchall()
    failed = conn.execute("SELECT sum(failed) FROM legacy.stage_counts WHERE stage = 'mirror'").fetchone()
    assert failed == (len(lost),) == (len(set(lost)),), again
    assert {event_id_of(message_id) for message_id in came} | {row[0] for row in lost} == accepted_ids(conn), again


def accepted_ids(conn: Conn) -> set[uuid.UUID]:
    return {row[0] for row in conn.execute("SELECT event_id FROM queue.events")}


def waiting(conn: Conn) -> int:
    row = conn.execute("SELECT count(*) FROM queue.mirror").fetchone()
    assert row
    return row[0]


def lost_at(conn: Conn) -> dict[str, int]:
    return dict(conn.execute("SELECT stage, count(*) FROM legacy.losses GROUP BY stage").fetchall())


def counted(conn: Conn, stage: str) -> int:
    """What arrived at a stage, of which each event proceeded or failed."""
    row = conn.execute(
        "SELECT sum(arrived), sum(proceeded + failed) FROM legacy.stage_counts WHERE stage = %s", (stage,)
    ).fetchone()
    assert row
    assert row[0] == row[1]
    return int(row[0])
