"""The addresses of a running platform: ``home/endpoints.json``, written by `up` (mode 0600: it contains passwords).

Every other command finds its servers through `connected`. The file exists while the platform serves, or after it
was killed. The addresses in a stale file do not answer.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline_platform.connections import forget_libpq_variables
from pipeline_platform.errors import ConfigError
from pipeline_platform.settings import Settings


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Addresses as URLs (None: not started), and process ids by name."""

    gateway: str
    console: str | None
    dagster: str | None
    database_url: str
    redis_url: str
    pids: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def embeds_postgres(self) -> bool:
        """Whether `database_url` is complete and belongs to a server that the platform started."""
        return "postgres" in self.pids

    def write(self, home: Path) -> None:
        """Replace the file atomically: a reader sees the old one or the new one."""
        unfinished = home / "endpoints.json.new"
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(self), file, indent=2)
        unfinished.replace(home / "endpoints.json")


def read_endpoints(home: Path) -> Endpoints | None:
    """The endpoints that the last `up` wrote; None if nothing was started, or it was stopped."""
    try:
        text = (home / "endpoints.json").read_text()
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise ConfigError(f"{error.filename} is another user's: run as the user who started the platform") from error
    except OSError as error:
        raise ConfigError(f"the home {home} cannot be read ({error.strerror}): see PIPELINE_HOME") from error
    try:
        return Endpoints(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{home / 'endpoints.json'} is damaged: start the platform again (pipeline-platform down, then up)"
        ) from error


def connected(settings: Settings) -> Settings:
    """`settings` with both URLs: the user's own, else those of the platform that runs in the home.

    ConfigError if there are neither.
    """
    if settings.database_url and settings.redis_url:
        return settings
    found = read_endpoints(settings.home)
    if found is None:
        raise ConfigError(
            f"no platform runs in {settings.home.resolve()}: start it (pipeline-platform up), "
            "or set PIPELINE_DATABASE_URL and PIPELINE_REDIS_URL"
        )
    if not settings.database_url and found.embeds_postgres:
        forget_libpq_variables()
    return settings.model_copy(
        update={
            "database_url": settings.database_url or found.database_url,
            "redis_url": settings.redis_url or found.redis_url,
        }
    )
