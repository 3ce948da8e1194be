"""The resource of the control plane: the settings and a bounded connection, both made when a run needs them.

Loading definitions connects to nothing.
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

# Recounting a busy hour reads millions of rows.
_STATEMENT_TIMEOUT_S = 300


class Platform(dg.ConfigurableResource[Any]):
    """The platform's servers and settings, as given by the environment of the run."""

    database_url: str = Field(
        default="", description="Empty: PIPELINE_DATABASE_URL, else the platform running in PIPELINE_HOME."
    )
    redis_url: str = Field(
        default="", description="Empty: PIPELINE_REDIS_URL, else the platform running in PIPELINE_HOME."
    )

    def settings(self) -> Settings:
        """The settings with both URLs. ConfigError if a setting is invalid or the platform is not running."""
        given = {name: url for name in ("database_url", "redis_url") if (url := getattr(self, name))}
        return connected(Settings.read().model_copy(update=given))

    @contextmanager
    def connect(self) -> Generator[psycopg.Connection[Any]]:
        """A connection in autocommit mode.

        An error of bad data becomes a PipelineError without the data it quotes, because Dagster stores the errors of
        its runs.
        """
        with connect(self.settings().database_url, "dagster", statement_timeout_s=_STATEMENT_TIMEOUT_S) as conn:
            try:
                yield conn
            except psycopg.Error as error:
                if not is_bad_data(error):
                    raise
                raise PipelineError(f"{type(error).__name__}: {without_values(error)}") from None
