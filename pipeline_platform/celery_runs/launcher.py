"""Sends each run to a Celery worker, and notices within a minute when its process is gone, on whatever machine.

dagster-celery's launcher asks the result backend, which never hears of a worker that was killed, so the run would stay
STARTED. This one asks for the sign of life of the run's process. Run monitoring fails a run without one, and
`run_retries` sends it again. The broker is the platform's Redis, database 1.
"""

import time
import warnings
from collections.abc import Mapping
from typing import Any, Self

import dagster as dg
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from pipeline_platform.celery_runs.sign_of_life import is_alive, open_engine
from pipeline_platform.local.services.endpoints import connected
from pipeline_platform.private_dagster import (
    CheckRunHealthResult,
    ConfigurableClassData,
    LaunchRunContext,
    WorkerStatus,
    announce_retry,
    storage_url,
)
from pipeline_platform.settings import Settings

_DATABASE = 1
_QUEUE = "dagster"
# A process whose PostgreSQL was restarted needs some seconds to show that it lives.
_GRACE_S = 45.0
_CELERY = {
    # Nobody reads results: the run's state is in Dagster's database.
    "task_ignore_result": True,
    # A worker takes a run only when it begins it: another one may be free.
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    "broker_connection_retry_on_startup": True,
}


class WatchedCeleryRunLauncher(CeleryRunLauncher):
    """The `run_launcher` of dagster.yaml for several machines. Its one option is `broker`."""

    def __init__(self, broker: str | None = None, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            default_queue=_QUEUE,
            broker=broker or _broker(),
            backend="disabled://",
            config_source=dict(_CELERY),
            inst_data=inst_data,
        )
        self._silent_since: dict[str, float] = {}

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {"broker": dg.Field(dg.Noneable(dg.StringSource), is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        return cls(config_value.get("broker"), inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Send a run to the workers."""
        with warnings.catch_warnings():
            # The parent class registers the task again for each run, and Celery warns that it is registered.
            warnings.simplefilter("ignore")
            super().launch_run(context)

    @property
    def supports_resume_run(self) -> bool:
        """A lost run is started again by `run_retries` and takes up its hours, as on one machine."""
        return False

    def terminate(self, run_id: str) -> bool:
        """Ask the process of a run to end; a run without a process is canceled at once. False if it has ended."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        task_id = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        if task_id:
            celery: Any = self.celery
            celery.control.revoke(task_id, terminate=True)
        if task_id is None or not self._lives(task_id):
            self._instance.report_run_canceled(run, "Canceled: no worker executed the run.")
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a run lives. Run monitoring fails the run if not."""
        task_id = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        if task_id and self._lives(task_id):
            self._silent_since.pop(run.run_id, None)
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        since = self._silent_since.setdefault(run.run_id, time.monotonic())
        if time.monotonic() - since < _GRACE_S:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        del self._silent_since[run.run_id]
        now = self._instance.get_run_by_id(run.run_id)
        if now is None or now.is_finished:
            return CheckRunHealthResult(WorkerStatus.SUCCESS)
        announce_retry(self._instance, run)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the process of its worker is gone")

    def _lives(self, task_id: str) -> bool:
        return is_alive(open_engine(storage_url(self._instance)), task_id)


def _broker() -> str:
    """The platform's Redis. ConfigError if it is not known."""
    address, _, _ = connected(Settings.read()).redis_url.partition("?")
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/{_DATABASE}"
