"""The Celery app of the workers: `celery -A pipeline_platform.celery_runs.worker worker --concurrency 2`.

It reads DAGSTER_HOME/dagster.yaml, whose `run_launcher` says where the broker is. Each run is executed in a process of
the worker's pool, which shows that it lives until the run has ended.
"""

from contextlib import AbstractContextManager
from typing import Any

import dagster as dg
from celery import signals
from dagster_celery import tasks

from pipeline_platform.celery_runs.launcher import WatchedCeleryRunLauncher
from pipeline_platform.celery_runs.sign_of_life import open_engine, shown
from pipeline_platform.errors import ConfigError
from pipeline_platform.private_dagster import storage_url

# Neither library has complete type hints.
_celery_signals: Any = signals
_celery_tasks: Any = tasks

_signs: dict[str, AbstractContextManager[None]] = {}


def _build_app() -> Any:
    with dg.DagsterInstance.get() as instance:
        launcher = instance.run_launcher
        if not isinstance(launcher, WatchedCeleryRunLauncher):
            raise ConfigError(
                "the run_launcher in DAGSTER_HOME/dagster.yaml is not WatchedCeleryRunLauncher: see "
                "docs/how-to/run-dagster-on-several-machines.md"
            )
        return launcher.celery


app = _build_app()
execute_job = _celery_tasks.create_execute_job_task(app)


@_celery_signals.task_prerun.connect
def begin(task_id: str, **_: Any) -> None:
    """Show that this process executes the task."""
    with dg.DagsterInstance.get() as instance:
        sign = shown(open_engine(storage_url(instance)), task_id)
    sign.__enter__()
    _signs[task_id] = sign


@_celery_signals.task_postrun.connect
def end(task_id: str, **_: Any) -> None:
    """The task has ended: what it held is free."""
    if sign := _signs.pop(task_id, None):
        sign.__exit__(None, None, None)
