"""Work whose worker died: what is tried, in which parts, and when an event is buried."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from pipeline_platform.db import queries
from pipeline_platform.errors import NotNowError
from pipeline_platform.event.types import Lane, TenantId
from pipeline_platform.queue.batches import Work, claim, claim_suspect, read
from pipeline_platform.settings import Settings
from pipeline_platform.worker.drain import drain_hour
from pipeline_platform.worker.engine import Engine, Processed
from pipeline_platform.worker.suspects import isolate_suspect
from pipeline_platform_tests.support.queue import accept, event
from pipeline_platform_tests.support.workers import Died

Conn = psycopg.Connection[Any]
_POISON = b'{"messageId":"poison","event":"x","userId":"u"}'


def accept_with_poison(conn: Conn, tenant: TenantId, events: int, poison_at: int | None = None) -> None:
    accept(conn, *(event(tenant, payload=_POISON if at == poison_at else None) for at in range(events)))


def die(conn: Conn, work_ids: list[int]) -> None:
    """What remains of a worker that died holding these."""
    conn.execute(queries("queue")["reap"], (work_ids,))


@pytest.mark.parametrize("poison_at", [0, 4_999])
def test_one_of_5000_is_buried_after_five_deaths_and_its_neighbours_are_delivered(
    conn: Conn, engine: Engine, settings: Settings, tenant: TenantId, poison_at: int
) -> None:
    accept_with_poison(conn, tenant, 5_000, poison_at)
    with conn.transaction():
        die(conn, [work.work_id for work in claim(conn, Lane.LIVE, 10, 0)])
    deaths, steps = 1, 0

    def noted(works: Sequence[Work]) -> None:
        nonlocal deaths
        doomed = [work for work in works if any(event.payload == _POISON for event in read(work))]
        if doomed:
            deaths += 1
            raise Died([work.work_id for work in doomed])

    while True:
        steps += 1
        try:
            if not isolate_suspect(settings, engine, noted):
                break
        except Died as death:
            die(conn, death.args[0])
    assert deaths == 5
    assert steps < 100
    assert conn.execute("SELECT count(*) FROM analytics.events").fetchone() == (4_999,)
    found = conn.execute("SELECT state, error_class, attempts, event_index, payload FROM queue.dead_letters").fetchall()
    assert found == [("exhausted", "WorkerCrashedError", 5, poison_at, _POISON)]
    assert conn.execute("SELECT count(*) FROM control.alerts").fetchone() == (1,)


@pytest.mark.parametrize("attempts_max", [1, 5])
def test_innocent_work_whose_workers_died_is_delivered(
    conn: Conn, engine: Engine, settings: Settings, tenant: TenantId, attempts_max: int
) -> None:
    strict = settings.model_copy(update={"attempts_max": attempts_max})
    for events in (1, 2, 40):
        accept_with_poison(conn, tenant, events)
    for _ in range(4):
        die(conn, [row[0] for row in conn.execute("SELECT work_id FROM queue.work").fetchall()])
    while isolate_suspect(strict, engine, lambda works: None):
        pass
    assert conn.execute("SELECT count(*) FROM analytics.events").fetchone() == (43,)
    assert conn.execute("SELECT count(*) FROM queue.dead_letters").fetchone() == (0,)


def test_ordinary_claims_pass_over_suspects(conn: Conn, tenant: TenantId) -> None:
    accept_with_poison(conn, tenant, 1)
    accept_with_poison(conn, tenant, 1)
    first = conn.execute("SELECT min(work_id) FROM queue.work").fetchone()
    assert first
    die(conn, [first[0]])
    with conn.transaction():
        assert [work.work_id for work in claim(conn, Lane.LIVE, 10, 0)] == [first[0] + 1]
        assert [work.work_id for work in claim_suspect(conn)] == [first[0]]


_DRAIN = """
import sys
from datetime import datetime
from pipeline_platform.settings import Settings
from pipeline_platform.worker.drain import drain_hour
drain_hour(Settings.read(), datetime.fromisoformat(sys.argv[1]))
"""


def test_work_that_kills_a_drain_is_left_to_the_workers(
    conn: Conn, engine: Engine, settings: Settings, tenant: TenantId
) -> None:
    for _ in range(3):
        accept_with_poison(conn, tenant, 5)
    row = conn.execute("SELECT date_trunc('hour', min(received_at), 'UTC') FROM queue.work").fetchone()
    assert row
    environment = os.environ | {
        "PIPELINE_HOME": str(settings.home),
        "PIPELINE_DATABASE_URL": settings.database_url,
        "PIPELINE_REDIS_URL": settings.redis_url,
        "PIPELINE_KILL_POINT": "worker.after_claim",
    }
    died = subprocess.run([sys.executable, "-c", _DRAIN, row[0].isoformat()], env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    with pytest.raises(NotNowError, match="suspect of crashing"):
        drain_hour(settings, row[0], wait_s=0)
    assert conn.execute("SELECT DISTINCT deaths FROM queue.work").fetchall() == [(1,)]
    assert not list((settings.home / "claims").glob("drain-*"))
    while isolate_suspect(settings, engine, lambda works: None):
        pass
    assert drain_hour(settings, row[0]) == Processed()
    assert conn.execute("SELECT count(*) FROM analytics.events").fetchone() == (15,)
