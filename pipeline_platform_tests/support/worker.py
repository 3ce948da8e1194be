"""One worker with a transform of the test's: `python -m pipeline_platform_tests.support.worker --slot N --workers N`.

TEST_TRANSFORM names a function of support/transforms.py. All else is the worker itself.
"""

import argparse
import os

from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.logs import set_up_logging
from pipeline_platform.telemetry.metrics.processes import share_numbers
from pipeline_platform.worker.process import Worker
from pipeline_platform_tests.support import transforms

if __name__ == "__main__":
    settings = Settings.read()
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--slot", type=int, required=True)
    arguments = parser.parse_args()
    set_up_logging(settings)
    share_numbers(settings.home, f"worker-{arguments.slot}")
    chosen = getattr(transforms, os.environ["TEST_TRANSFORM"])
    Worker(settings, arguments.slot, arguments.workers, transform=chosen).run()
