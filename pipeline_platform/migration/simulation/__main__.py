"""Runs a part of the simulated old pipeline: `python -m pipeline_platform.migration.simulation gateway|functions`."""

import argparse
import os

import uvicorn
import uvloop

from pipeline_platform.local.services.endpoints import connected
from pipeline_platform.migration.simulation.functions import run_functions
from pipeline_platform.migration.simulation.gateway import app_of
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.logs import set_up_logging


def main() -> None:
    """Run until told to stop."""
    # Only its user can read the files that it writes.
    os.umask(0o077)
    parser = argparse.ArgumentParser(prog="python -m pipeline_platform.migration.simulation", description=__doc__)
    parser.add_argument("part", choices=("gateway", "functions"))
    parser.add_argument("--port", type=int, default=8090, help="where the gateway listens")
    arguments = parser.parse_args()
    settings = connected(Settings.read())
    set_up_logging(settings)
    if arguments.part == "gateway":
        uvicorn.run(app_of(settings), host="127.0.0.1", port=arguments.port, log_level="warning", access_log=False)
    else:
        uvloop.run(run_functions(settings))


if __name__ == "__main__":
    main()
