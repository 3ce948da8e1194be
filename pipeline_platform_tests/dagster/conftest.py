"""A real Dagster instance: the dagster.yaml that is shipped, on a PostgreSQL database of the test's own."""

import importlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.engine import make_url as url_of

from pipeline_platform.defs.resources import Platform
from pipeline_platform.event.types import TenantId
from pipeline_platform.local.supervisor.dagster import storage_environment
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.servers import make_url
from pipeline_platform_tests.support.tenants import add_tenant

# Definitions read the home when they are loaded: not that of a platform which runs in this checkout.
with pytest.MonkeyPatch.context() as home_of_nobody:
    home_of_nobody.setenv("PIPELINE_HOME", "/nonexistent")
    build_defs = importlib.import_module("pipeline_platform.definitions").build_defs

ROOT = Path(__file__).parents[2]

_counter = itertools.count(1)


def instance_environment(url: str, home: Path) -> dict[str, str]:
    """The variable that dagster.yaml reads, for a database at `url`, and a DAGSTER_HOME with that file in it."""
    shutil.copy(ROOT / "dagster.yaml", home / "dagster.yaml")
    own = url_of(storage_environment(url)["DAGSTER_PG_URL"]).set(database=str(conninfo_to_dict(url)["dbname"]))
    return {"DAGSTER_PG_URL": own.render_as_string(hide_password=False), "DAGSTER_HOME": str(home)}


@pytest.fixture(scope="session")
def instance_template(servers: dict[str, str], admin: psycopg.Connection[Any]) -> Iterator[str]:
    """The name of a database that holds the tables of an instance; they take seconds to make."""
    # Scenarios have this fixture too, as one of their own.
    name = f"dagster_template_{os.getpid()}_{next(_counter)}"
    admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        for variable, value in instance_environment(make_url(servers["database_url"], name), Path(home)).items():
            patch.setenv(variable, value)
        with dg.DagsterInstance.get() as made:
            made.get_runs(limit=1)
    yield name
    admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def instance(
    instance_template: str,
    servers: dict[str, str],
    admin: psycopg.Connection[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[dg.DagsterInstance]:
    """Contexts of schedules and sensors built on it are to be left (`with`), and to hold their resources themselves:
    given as an argument, they make another context, which nobody leaves. Its instance becomes the current one again
    when it is collected, whichever test runs by then.
    """
    name = f"dagster_{os.getpid()}_{next(_counter)}"
    names = {"name": sql.Identifier(name), "template": sql.Identifier(instance_template)}
    admin.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template}").format(**names))
    for variable, value in instance_environment(make_url(servers["database_url"], name), tmp_path).items():
        monkeypatch.setenv(variable, value)
    with dg.DagsterInstance.get() as found:
        yield found
    admin.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**names))


@pytest.fixture
def platform(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """The resource on the test's servers, which waits a second for whoever holds an hour."""
    monkeypatch.setenv("PIPELINE_HOUR_WAIT_S", "1")
    return Platform(database_url=settings.database_url, redis_url=settings.redis_url)


@pytest.fixture
def defs(platform: Platform) -> dg.Definitions:
    return build_defs({"platform": platform})


@pytest.fixture
def tenants(conn: psycopg.Connection[Any]) -> list[TenantId]:
    return [add_tenant(conn, name).tenant_id for name in ("acme", "globex")]


@pytest.fixture
def storage(instance: dg.DagsterInstance) -> Iterator[psycopg.Connection[Any]]:
    """The instance's own database, in autocommit mode."""
    url = url_of(os.environ["DAGSTER_PG_URL"])
    named = {"dbname": url.database, "user": url.username, "password": url.password, **url.query}
    with psycopg.connect(make_conninfo(**named), autocommit=True) as conn:
        yield conn
