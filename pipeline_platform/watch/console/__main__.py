"""Process entry: `python -m pipeline_platform.watch.console` serves the page until told to stop."""

import argparse
import os
import sys

import uvicorn

from pipeline_platform.errors import ConfigError
from pipeline_platform.local.services.endpoints import connected
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.logs import set_up_logging
from pipeline_platform.watch.console.app import app_of

_STOP_S = 2


def main() -> int:
    """Serve. Exit 2 for a wrong configuration."""
    # Only its user can read the files that it writes.
    os.umask(0o077)
    try:
        settings = connected(Settings.read())
        set_up_logging(settings)
        parser = argparse.ArgumentParser(prog="python -m pipeline_platform.watch.console", description=__doc__)
        parser.add_argument("--port", type=int, default=settings.console_port, help="where it listens")
        arguments = parser.parse_args()
        app = app_of(settings)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    uvicorn.run(
        app,
        host=settings.console_host,
        port=arguments.port,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_STOP_S,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
