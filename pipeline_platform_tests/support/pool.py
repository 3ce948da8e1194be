"""A worker pool whose first processes die at named places: `python -m pipeline_platform_tests.support.pool WORKERS`.

TEST_KILL_POINTS (JSON) holds one kill point for each process it starts, in order; an empty one, and the end of the
list, mean none. TEST_TRANSFORM gives all of them a transform of support/transforms.py. All else is the pool itself.
"""

import json
import os
import subprocess
import sys

from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.logs import set_up_logging
from pipeline_platform.worker.pool import Pool


class MortalPool(Pool):
    """Gives each process that it starts the next kill point."""

    if "TEST_TRANSFORM" in os.environ:
        _module = "pipeline_platform_tests.support.worker"
    _kill_points: list[str] = json.loads(os.environ.get("TEST_KILL_POINTS", "[]"))

    def _start(self, slot: int) -> subprocess.Popen[bytes]:
        os.environ["PIPELINE_KILL_POINT"] = self._kill_points.pop(0) if self._kill_points else ""
        return super()._start(slot)


if __name__ == "__main__":
    settings = Settings.read()
    set_up_logging(settings)
    MortalPool(settings, int(sys.argv[1])).run()
