"""Entry of `up --detach` and `make dev`: `python -m pipeline_platform.local.supervisor`, set by the environment."""

import argparse
import os
import sys

from pipeline_platform.errors import ConfigError, PipelineError
from pipeline_platform.local.supervisor import screen
from pipeline_platform.local.supervisor.dagster import dagster, dagster_dev
from pipeline_platform.local.supervisor.run import supervise
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.logs import Redactor, set_up_logging
from pipeline_platform.telemetry.visible import visible_lines


def main() -> int:
    """Supervise until told to stop. Exit 2 for a wrong configuration, 1 where something does not start."""
    # Only its user can read the files that it writes.
    os.umask(0o077)
    parser = argparse.ArgumentParser(prog="python -m pipeline_platform.local.supervisor", description=__doc__)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--no-dagster", action="store_true", help="the data plane alone")
    kind.add_argument("--dagster-dev", action="store_true", help="Dagster loads edited definitions anew")
    parser.add_argument("--with-legacy", action="store_true", help="with the simulated old pipeline")
    arguments = parser.parse_args()
    legacy = arguments.with_legacy
    redactor = Redactor(Settings.model_construct())
    try:
        settings = Settings.read()
        redactor = Redactor(settings)
        set_up_logging(settings)
        if arguments.dagster_dev:
            supervise(settings, dagster_dev, screen.summary, legacy=legacy)
        else:
            # The waiting `up --detach` prints the addresses.
            kind_of_dagster = None if arguments.no_dagster else dagster
            supervise(settings, kind_of_dagster, lambda _home, _endpoints: None, legacy=legacy)
    except PipelineError as error:
        sys.stderr.write(f"{visible_lines(redactor.text(str(error)))}\n")
        return 2 if isinstance(error, ConfigError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
