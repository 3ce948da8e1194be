"""Process entry of `up --detach`: `python -m pipeline_platform.supervisor`, configured by the environment alone."""

import argparse
import sys

from pipeline_platform.errors import ConfigError, PipelineError
from pipeline_platform.settings import Settings
from pipeline_platform.supervisor.run import supervise


def main() -> int:
    """Supervise until told to stop. Exit 2 for a wrong configuration, 1 where something does not start."""
    parser = argparse.ArgumentParser(prog="python -m pipeline_platform.supervisor", description=__doc__)
    parser.add_argument("--no-dagster", action="store_true")
    arguments = parser.parse_args()
    try:
        supervise(Settings.read(), dagster=not arguments.no_dagster, announce=lambda _home, _endpoints: None)
    except PipelineError as error:
        sys.stderr.write(f"{error}\n")
        return 2 if isinstance(error, ConfigError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
