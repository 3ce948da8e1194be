"""Whether sensors and schedules are on by themselves: only in an instance that is kept (DAGSTER_HOME).

`dagster dev` in a checkout has a temporary instance. Its sensors would process the same hours as those of a running
platform, and would judge its alerts by an instance that knows none of its runs. There they are off until a person
switches them on.
"""

import os

import dagster as dg

_IS_KEPT = bool(os.environ.get("DAGSTER_HOME"))
SENSORS = dg.DefaultSensorStatus.RUNNING if _IS_KEPT else dg.DefaultSensorStatus.STOPPED
SCHEDULES = dg.DefaultScheduleStatus.RUNNING if _IS_KEPT else dg.DefaultScheduleStatus.STOPPED
