"""Runs the process that looks for alerts and delivers them: `python -m pipeline_platform.watch.alerts`."""

import logging
import os
import signal
import sys

from pipeline_platform.errors import ConfigError
from pipeline_platform.local.services.endpoints import connected
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.logs import set_up_logging
from pipeline_platform.watch.alerts.process import Alerter


def main() -> None:
    # Only its user can read the files that it writes.
    os.umask(0o077)
    try:
        settings = connected(Settings.read())
        set_up_logging(settings)
        # Apprise logs the addresses of channels at level INFO.
        logging.getLogger("apprise").setLevel(logging.WARNING)
        alerter = Alerter(settings)
    except ConfigError as error:
        sys.stderr.write(f"pipeline_platform.watch.alerts: {error}\n")
        sys.exit(2)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: alerter.stop())
    alerter.run()


if __name__ == "__main__":
    main()
