"""The environment of a process of the platform: the test's settings, and no others."""

import os
from pathlib import Path

from pipeline_platform.settings import Settings

_ROOT = Path(__file__).parents[2]


def environment_with(**more: str) -> dict[str, str]:
    """This process's environment with these settings alone, by their lower-case names."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")},
        "PYTHONPATH": str(_ROOT),
        **{f"PIPELINE_{name.upper()}": value for name, value in more.items()},
    }


def environment_of(settings: Settings, **more: str) -> dict[str, str]:
    """The same with the home and the servers of `settings`."""
    given = {
        "home": str(settings.home),
        "database_url": settings.database_url,
        "redis_url": settings.redis_url,
        "parity_events_min": str(settings.parity_events_min),
    }
    return environment_with(**given | more)
