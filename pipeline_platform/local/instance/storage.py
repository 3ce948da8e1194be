"""Dagster's PostgreSQL storage with one pool of connections a process.

Dagster's own opens a connection for each statement: 540 a minute while nothing happens. Its web server alone keeps
one. Here all instances of a process share one pool, because its code server makes a new instance for each tick of a
sensor. A connection is tested before use, so a restart of PostgreSQL costs no failed statement.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Self

from sqlalchemy import Engine, create_engine

from pipeline_platform.private_dagster import (
    ConfigurableClassData,
    DagsterPostgresStorage,
    pg_url_from_config,
    use_engine,
)

# As many as the threads of the daemon use at once; more are opened for a moment.
_POOL_SIZE = 4
_OVERFLOW = 20
_RECYCLE_S = 3_600


class PooledPostgresStorage(DagsterPostgresStorage):
    """The `storage` of dagster.yaml. Its options are those of `storage: postgres`, without `auth_provider`."""

    def __init__(
        self, postgres_url: str, should_autocreate_tables: bool = True, inst_data: ConfigurableClassData | None = None
    ) -> None:
        # The first instance of a process looks for the tables; the parent class opens three connections for it.
        super().__init__(postgres_url, should_autocreate_tables and postgres_url not in _prepared, inst_data)
        _prepared.add(postgres_url)
        use_engine(self, _engine(postgres_url))

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride]
        return cls(pg_url_from_config(config_value), config_value.get("should_autocreate_tables", True), inst_data)


_prepared: set[str] = set()


@cache
def _engine(url: str) -> Engine:
    return create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        pool_size=_POOL_SIZE,
        max_overflow=_OVERFLOW,
        pool_recycle=_RECYCLE_S,
        pool_pre_ping=True,
    )
