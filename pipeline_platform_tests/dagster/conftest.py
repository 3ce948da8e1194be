"""A real Dagster instance: the dagster.yaml that is shipped, on a PostgreSQL database of the test's own."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pipeline_platform.definitions import build_defs
from pipeline_platform.defs.resources import Platform
from pipeline_platform.event import TenantId
from pipeline_platform.settings import Settings
from pipeline_platform_tests.dagster.planting import add_tenant

ROOT = Path(__file__).parents[2]


def instance_environment(url: str, home: Path) -> dict[str, str]:
    """The variables that dagster.yaml reads, for a database at `url`, and a DAGSTER_HOME with that file in it."""
    parts = conninfo_to_dict(url)
    shutil.copy(ROOT / "dagster.yaml", home / "dagster.yaml")
    names = {"host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD", "dbname": "DB"}
    values = {f"DAGSTER_PG_{name}": str(parts.get(part) or "") for part, name in names.items()}
    return values | {"DAGSTER_HOME": str(home)}


@pytest.fixture
def instance(empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    for name, value in instance_environment(empty_database_url, tmp_path).items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as found:
        yield found


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
    return [add_tenant(conn, name) for name in ("acme", "globex")]
