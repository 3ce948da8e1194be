"""Real servers for every test: one PostgreSQL and one Redis a session, a database a test.

A test database is a copy of `pipeline_template`, which has every migration. Under pytest-xdist the controller
starts the servers and all workers share them: databases have unique names, each worker its Redis database.
Nothing is started before the first test that asks for it (with xdist: before the first worker).
"""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pipeline_platform import schema
from pipeline_platform.local.services import start_postgres, start_redis
from pipeline_platform.settings import Settings

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
        conn.execute(f"CREATE DATABASE {_TEMPLATE}")
        schema.migrate(template)
        conn.execute(f"ALTER DATABASE {_TEMPLATE} ALLOW_CONNECTIONS false IS_TEMPLATE true")
    return {"database_url": postgres.url, "redis_url": cache.url}


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A directory that goes away; not pytest's, which are closed to the account that PostgreSQL runs as."""
    path = Path(tempfile.mkdtemp(prefix="pipeline-test-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


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
    admin.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template}").format(**identifiers))
    yield make_url(servers["database_url"], name)
    admin.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**identifiers))


def make_url(url: str, database: str) -> str:
    """`url` with another database at its end."""
    return f"{url.rpartition('/')[0]}/{database}"


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
        home=home, database_url=database_url, redis_url=redis_url, gateway_port=0, console_port=0, dagster_port=0
    )


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to `database_url`, in autocommit mode."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection
