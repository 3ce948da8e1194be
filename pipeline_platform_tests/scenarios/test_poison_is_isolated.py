"""Promise: an event that kills its worker every time costs nobody else: it is buried once, with one alert."""

import random
from typing import Any

import psycopg
import pytest

from pipeline_platform.db import connect
from pipeline_platform.dead_letters.store import Failure, bury
from pipeline_platform.event.types import Lane
from pipeline_platform.queue.batches import claim, complete, read
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.client import Client
from pipeline_platform_tests.support.ledger import Ledger, account_faults
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.tenants import add_tenants
from pipeline_platform_tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(600)

Conn = psycopg.Connection[Any]


def test_an_event_that_kills_its_worker_is_buried_and_its_neighbours_are_delivered(
    settings: Settings, conn: Conn, seed: int
) -> None:
    rng, ledger = random.Random(seed), Ledger(seed)
    (tenant,) = add_tenants(conn, "a")
    batch = [ledger.event(tenant, rng) for _ in range(100)]
    batch[rng.randrange(100)]["properties"] = {"mark": "deadly"}
    with Platform(settings) as platform:
        platform.start_gateway()
        answer = Client(platform.port, tenant.write_key).send(batch)
        assert answer.accepted == 100
        platform.start_crashing_workers("deadly")
        buried = "SELECT count(*) FROM queue.dead_letters WHERE state = 'exhausted'"
        wait_for("the burial", lambda: conn.execute(buried).fetchone() == (1,), 240)
        platform.await_drained(conn)
        assert platform.worker_deaths() >= 5
    assert conn.execute("SELECT count(*) FROM analytics.events").fetchone() == (99,)
    assert conn.execute("SELECT count(*), sum(occurrences) FROM control.alerts").fetchone() == (1, 1)
    assert account_faults(conn) == [], f"seed {seed}"


def test_a_dead_letter_that_kills_its_worker_is_exhausted_and_the_other_letters_are_delivered(
    settings: Settings, conn: Conn, seed: int
) -> None:
    rng, ledger = random.Random(seed), Ledger(seed)
    (tenant,) = add_tenants(conn, "a")
    batch = [ledger.event(tenant, rng) for _ in range(40)]
    batch[rng.randrange(40)]["properties"] = {"mark": "deadly"}
    hasty = settings.model_copy(update={"retry_base_s": 0.01, "retry_max_s": 0.01})
    with Platform(hasty) as platform:
        platform.start_gateway()
        assert Client(platform.port, tenant.write_key).send(batch).accepted == 40
        bury_all(hasty)
        platform.start_crashing_workers("deadly")
        open_ones = "SELECT count(*) FROM queue.dead_letters WHERE state = 'waiting'"
        wait_for("the letters to be resolved", lambda: conn.execute(open_ones).fetchone() == (0,), 240)
        # One death in company and four alone. At each of them the second worker dies as well if it takes the letter
        # before the first death is counted.
        assert 5 <= platform.worker_deaths() <= 10
    found = conn.execute("SELECT state, attempts, error_class, count(*) FROM queue.dead_letters GROUP BY 1, 2, 3")
    assert set(found) == {("delivered", 2, "TestError", 39), ("exhausted", 5, "WorkerCrashedError", 1)}
    assert conn.execute("SELECT count(*), sum(occurrences) FROM control.alerts").fetchone() == (1, 1)
    assert account_faults(conn) == [], f"seed {seed}"


def bury_all(settings: Settings) -> None:
    """Make dead letters of all that waits, due at once."""
    with connect(settings.database_url, "test") as conn, conn.transaction():
        works = claim(conn, Lane.LIVE, 100, 0)
        bury(conn, settings, [Failure(event, "load", "TestError", "a test") for work in works for event in read(work)])
        complete(conn, works)
