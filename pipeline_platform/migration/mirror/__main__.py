"""Runs the mirror: `python -m pipeline_platform.migration.mirror`."""

import os

import uvloop

from pipeline_platform.local.services.endpoints import connected
from pipeline_platform.migration.mirror.process import Mirror
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.logs import set_up_logging


async def _run(settings: Settings) -> None:
    await Mirror(settings).run()


def main() -> None:
    """Run until told to stop."""
    # Only its user can read the files that it writes.
    os.umask(0o077)
    settings = connected(Settings.read())
    set_up_logging(settings)
    uvloop.run(_run(settings))


if __name__ == "__main__":
    main()
