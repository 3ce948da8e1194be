"""What the control plane works with: the settings and a bounded connection, both made when a run needs them.

Nothing connects when definitions are loaded.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import psycopg
from pydantic import Field

from pipeline_platform.db import connect
from pipeline_platform.errors import PipelineError, is_bad_data, without_values
from pipeline_platform.local.services.endpoints import connected
from pipeline_platform.settings import Settings

# Recounting an hour of a busy day reads millions of rows.
_STATEMENT_TIMEOUT_S = 300


class Platform(dg.ConfigurableResource[Any]):
    """The platform's servers and settings, as the environment of the run names them."""

    database_url: str = Field(
        default="", description="Empty: PIPELINE_DATABASE_URL, else the platform running in PIPELINE_HOME."
    )
    redis_url: str = Field(
        default="", description="Empty: PIPELINE_REDIS_URL, else the platform running in PIPELINE_HOME."
    )

    def settings(self) -> Settings:
        """The settings with both URLs. ConfigError where one cannot be used, or nothing runs."""
        given = {name: url for name in ("database_url", "redis_url") if (url := getattr(self, name))}
        return connected(Settings.read().model_copy(update=given))

    @contextmanager
    def connect(self) -> Generator[psycopg.Connection[Any]]:
        """A connection in autocommit mode.

        PipelineError, without what it quotes, in place of an error of bad data: Dagster keeps the errors of its runs.
        """
        with connect(self.settings().database_url, "dagster", statement_timeout_s=_STATEMENT_TIMEOUT_S) as conn:
            try:
                yield conn
            except psycopg.Error as error:
                if not is_bad_data(error):
                    raise
                raise PipelineError(f"{type(error).__name__}: {without_values(error)}") from None
