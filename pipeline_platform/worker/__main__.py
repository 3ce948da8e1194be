"""Process entry: `python -m pipeline_platform.worker` runs the pool; with `--slot` one worker of it."""

import argparse
import logging

from pipeline_platform.settings import Settings
from pipeline_platform.worker.pool import Pool
from pipeline_platform.worker.process import Worker


def main() -> None:
    """Run until told to stop."""
    settings = Settings.read()
    parser = argparse.ArgumentParser(prog="python -m pipeline_platform.worker", description=__doc__)
    parser.add_argument("--workers", type=int, default=settings.workers, help="how many worker processes")
    parser.add_argument("--slot", type=int, help="run the one worker of this slot instead of a pool")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if arguments.slot is not None:
        Worker(settings, arguments.slot).run()
    else:
        Pool(settings, arguments.workers).run()


if __name__ == "__main__":
    main()
