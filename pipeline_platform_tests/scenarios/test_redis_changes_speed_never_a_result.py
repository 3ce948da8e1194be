"""Promise: Redis may be killed, frozen, flushed or hold nonsense: the rows are the same, look-ups included."""

import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.ledger import Ledger, Report
from pipeline_platform_tests.support.load import Load
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.servers import OwnServer, own_redis
from pipeline_platform_tests.support.tenants import add_tenants

Conn = psycopg.Connection[Any]

# What each row must have been enriched with, whatever the cache said: PostgreSQL's own answer.
_WRONGLY_ENRICHED = """
    SELECT count(*) FROM analytics.events AS e JOIN control.tenants AS t USING (tenant_id)
    LEFT JOIN LATERAL (
        SELECT jsonb_object_agg(k.name, k.value) AS traits FROM control.traits AS k
        WHERE k.tenant_id = e.tenant_id AND k.kind = 'user' AND k.subject_id = e.user_id
    ) AS known ON true
    WHERE e.tenant_name IS DISTINCT FROM t.name OR e.tenant_plan IS DISTINCT FROM t.plan
       OR e.user_traits IS DISTINCT FROM known.traits
"""


@pytest.fixture
def mortal_redis() -> Iterator[OwnServer]:
    with tempfile.TemporaryDirectory(prefix="pipeline-test-", ignore_cleanup_errors=True) as home:
        server = own_redis(Path(home))
        yield server
        server.thaw()
        server.stop()


def flush(server: OwnServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()


def fill_with_nonsense(server: OwnServer) -> None:
    """Lists under every key that is cached."""
    with redis.Redis.from_url(server.url) as client:
        for key in client.keys("lookup:*"):
            client.delete(key)
            client.rpush(key, "nonsense")


def forge(server: OwnServer) -> None:
    """Traits, names and plans that nobody has, in forms that were and are written there."""
    with redis.Redis.from_url(server.url) as client:
        for place, key in enumerate(client.keys("lookup:*")):
            value: Any = client.get(key) or b""
            client.set(key, [b"1:{broken", b'1:{"plan":"forged"}', value[:24] + b'{"plan":"forged"}'][place % 3])


@pytest.mark.parametrize("fault", [OwnServer.kill, OwnServer.freeze, flush, fill_with_nonsense, forge])
def test_a_fault_of_redis_under_load(
    settings: Settings,
    conn: Conn,
    mortal_redis: OwnServer,
    seed: int,
    report: Report,
    fault: Callable[[OwnServer], None],
) -> None:
    ledger = Ledger(seed)
    tenants = add_tenants(conn, "a", "b", "c")
    known_users = """
        INSERT INTO control.traits (tenant_id, kind, subject_id, name, value, as_of, event_id)
        SELECT DISTINCT tenant_id, 'user', user_id, 'plan', '"pro"'::jsonb, now(), gen_random_uuid()
        FROM control.tenants, unnest(%s::text[]) AS user_id
    """
    users = sorted({event["userId"] for event in (Ledger(0).event(tenants[0], random.Random(n)) for n in range(200))})
    conn.execute(known_users, (users,))
    with Platform(settings.model_copy(update={"redis_url": mortal_redis.url})) as platform:
        platform.start_workers()
        platform.start_gateway()
        with Load(platform.port, ledger, tenants) as load:
            load.await_acknowledged(100)
            fault(mortal_redis)
            load.await_acknowledged(200)
        platform.await_drained(conn)
    assert conn.execute(_WRONGLY_ENRICHED).fetchone() == (0,)
    assert conn.execute("SELECT count(*) > 0 FROM analytics.events WHERE user_traits IS NOT NULL").fetchone() == (True,)
    report(ledger.judge(conn))
