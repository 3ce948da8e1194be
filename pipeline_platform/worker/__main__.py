"""Process entry: `python -m pipeline_platform.worker` runs the pool; with `--name` one worker of it."""

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
    parser.add_argument("--name", help="run one worker of this name instead of a pool")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if arguments.name:
        Worker(settings, arguments.name).run()
    else:
        Pool(settings, arguments.workers).run()


if __name__ == "__main__":
    main()
