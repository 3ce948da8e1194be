"""Real servers for every test: one PostgreSQL and one Redis a session, a database a test.

A test database is a copy of `pipeline_template`, which has every migration. Under pytest-xdist the controller
starts the servers and all workers share them: databases have unique names, each worker its Redis database.
Nothing is started before the first test that asks for it (with xdist: before the first worker).
"""

import itertools
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from hypothesis import settings as hypothesis_settings
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pipeline_platform import schema
from pipeline_platform.event.types import TenantId
from pipeline_platform.local.services import start_postgres, start_redis
from pipeline_platform.lookups import Lookups
from pipeline_platform.queue.keeper import open_partitions
from pipeline_platform.settings import Settings
from pipeline_platform.worker.engine import Engine
from pipeline_platform_tests.support.homes import temporary_home
from pipeline_platform_tests.support.servers import make_url
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.workers import Workers, working

# A failure prints what repeats it. No test asserts durations.
hypothesis_settings.register_profile("tests", print_blob=True, deadline=None)
hypothesis_settings.load_profile("tests")

_TEMPLATE = "pipeline_template"
_running = ExitStack()
_counter = itertools.count(1)
_SERVERS = pytest.StashKey[dict[str, str]]()


def _start_servers() -> dict[str, str]:
    """Start both and make the template; `_running` stops them when the session ends."""
    home = _running.enter_context(temporary_home())
    postgres = _running.enter_context(start_postgres(home, shared_buffers="128MB", max_wal_size="1GB"))
    cache = _running.enter_context(start_redis(home))
    template = make_conninfo(postgres.url, dbname=_TEMPLATE)
    with psycopg.connect(postgres.url, autocommit=True) as conn:
        # Tests kill processes, not the machine, so nothing that they prove needs it. With it each DROP DATABASE takes
        # half a second and more.
        conn.execute("ALTER SYSTEM SET fsync = off")
        conn.execute("SELECT pg_reload_conf()")
        conn.execute(f"CREATE DATABASE {_TEMPLATE}")
        schema.migrate(template)
        conn.execute(f"ALTER DATABASE {_TEMPLATE} ALLOW_CONNECTIONS false IS_TEMPLATE true")
    return {"database_url": postgres.url, "redis_url": cache.url}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the longest tests come first, so that both processes of `make test` end at about the same time."""
    longest: dict[Path, float] = {}
    for item in items:
        mark = item.get_closest_marker("timeout")
        longest[item.path] = max(longest.get(item.path, 0.0), float(mark.args[0]) if mark else 0.0)
    items.sort(key=lambda item: -longest[item.path])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """In the xdist controller, once a worker: tell it where the servers are."""
    node.workerinput["servers"] = _servers(node.config)


def pytest_unconfigure() -> None:
    _running.close()


def _servers(config: pytest.Config) -> dict[str, str]:
    given = getattr(config, "workerinput", {}).get("servers")
    if given is not None:
        return given
    if _SERVERS not in config.stash:
        config.stash[_SERVERS] = _start_servers()
    return config.stash[_SERVERS]


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> dict[str, str]:
    """`database_url` (to make databases with) and `redis_url` of the session's servers."""
    return _servers(request.config)


@pytest.fixture(scope="session")
def admin(servers: dict[str, str]) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection to the session's PostgreSQL, in none of the test databases."""
    with psycopg.connect(servers["database_url"], autocommit=True) as conn:
        yield conn


@pytest.fixture
def database_url(servers: dict[str, str], admin: psycopg.Connection[Any]) -> Iterator[str]:
    """A fresh, migrated database."""
    yield from _database(servers, admin, _TEMPLATE)


@pytest.fixture
def empty_database_url(servers: dict[str, str], admin: psycopg.Connection[Any]) -> Iterator[str]:
    """A fresh database with nothing in it: for migrations and for Dagster's storage."""
    yield from _database(servers, admin, "template1")


def _database(servers: dict[str, str], admin: psycopg.Connection[Any], template: str) -> Iterator[str]:
    name = f"test_{os.getpid()}_{next(_counter)}"
    identifiers = {"name": sql.Identifier(name), "template": sql.Identifier(template)}
    # Takes half the time of the default strategy, which writes every page to the log.
    admin.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY").format(**identifiers))
    yield make_url(servers["database_url"], name)
    admin.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**identifiers))


@pytest.fixture
def redis_url(request: pytest.FixtureRequest, servers: dict[str, str]) -> str:
    """An empty Redis database; under xdist one of this worker's own."""
    worker = getattr(request.config, "workerinput", {}).get("workerid", "gw0")
    url = make_url(servers["redis_url"], worker.removeprefix("gw"))
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty home, removed afterwards."""
    with temporary_home() as path:
        yield path


@pytest.fixture
def settings(database_url: str, redis_url: str, home: Path) -> Settings:
    """Settings with servers and a home of this test's own, and free ports."""
    return Settings(
        home=home,
        database_url=database_url,
        redis_url=redis_url,
        gateway_port=0,
        console_port=0,
        dagster_port=0,
        # A test compares few events.
        parity_events_min=1,
    )


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to `database_url`, in autocommit mode."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def tenant(conn: psycopg.Connection[Any]) -> TenantId:
    """acme of the plan pro, and the hours that are made ahead."""
    open_partitions(conn)
    return add_tenant(conn, "acme", plan="pro").tenant_id


@pytest.fixture
def workers(settings: Settings) -> Iterator[Workers]:
    """Workers in this process."""
    with working(settings) as found:
        yield found


@pytest.fixture
def engine(workers: Workers) -> Engine:
    return workers.engine


@pytest.fixture
def lookups(workers: Workers) -> Lookups:
    return workers.lookups


@pytest.fixture
def seed() -> int:
    """Of all that is random in a test. PIPELINE_TEST_SEED repeats a run; without it each is another one."""
    found = int(os.environ.get("PIPELINE_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    # pytest shows it where the test fails.
    print(f"repeat with PIPELINE_TEST_SEED={found}")
    return found


@pytest.fixture
def rng(seed: int) -> random.Random:
    return random.Random(seed)
