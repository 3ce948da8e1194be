"""Process entry: `python -m pipeline_platform.worker` runs the pool; with `--slot` one worker of it."""

import argparse
import os

from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.logs import set_up_logging
from pipeline_platform.telemetry.metrics.processes import share_numbers
from pipeline_platform.telemetry.tracing import start_tracing
from pipeline_platform.worker.pool import Pool
from pipeline_platform.worker.process import Worker


def main() -> None:
    """Run until told to stop."""
    # Only its user may read the files that it writes.
    os.umask(0o077)
    settings = Settings.read()
    parser = argparse.ArgumentParser(prog="python -m pipeline_platform.worker", description=__doc__)
    parser.add_argument("--workers", type=int, default=settings.workers, help="how many worker processes")
    parser.add_argument("--slot", type=int, help="run the one worker of this slot, from 1 on, instead of a pool")
    arguments = parser.parse_args()
    set_up_logging(settings)
    if arguments.slot is not None:
        share_numbers(settings.home, f"worker-{arguments.slot}")
        tracer = start_tracing(f"worker-{arguments.slot}")
        Worker(settings, arguments.slot, arguments.workers, tracer).run()
    else:
        Pool(settings, arguments.workers).run()


if __name__ == "__main__":
    main()
