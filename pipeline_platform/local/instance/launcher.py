"""Starts each run as a process of its own, which outlives the code server, the daemon and the web server.

Dagster's default launcher starts runs inside the code server: when that is killed, its runs die, stay STARTED and keep
their slots. This one starts `dagster api execute_run` in a new session. Run monitoring asks it whether the process
lives and fails the run if not; `run_retries` then starts it again. It works on one machine only.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import dagster as dg

from pipeline_platform.errors import ConfigError, NotNowError
from pipeline_platform.local.instance import run_files
from pipeline_platform.private_dagster import (
    CheckRunHealthResult,
    ConfigurableClass,
    ConfigurableClassData,
    ExecuteRunArgs,
    LaunchRunContext,
    RunLauncher,
    WorkerStatus,
    announce_retry,
    serialize_value,
)


class ProcessRunLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """The `run_launcher` of dagster.yaml. It has no options."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        super().__init__()

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        del config_value
        return cls(inst_data)

    @property
    def _directory(self) -> Path:
        return run_files.directory_of(self._instance.root_directory)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the process of a run. NotNowError if the run has one, ConfigError if it names no code."""
        run = context.dagster_run
        if run.job_code_origin is None:
            raise ConfigError(f"run {run.run_id} does not say where its code is: launch it from a loaded location")
        arguments = ExecuteRunArgs(run.job_code_origin, run.run_id, self._instance.get_ref())
        command = [run.job_code_origin.executable_path, "-m", "dagster", "api", "execute_run"]
        # The arguments may contain passwords, which others could read in a command line.
        environment = {**os.environ, "DAGSTER_EXECUTE_RUN_ARGS": serialize_value(arguments)}
        try:
            lock = run_files.take(self._directory, run.run_id)
        except BlockingIOError as error:
            raise NotNowError(f"run {run.run_id} has a process already") from error
        pid = 0
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True, pass_fds=(lock,)
            )
            pid = process.pid
        finally:
            run_files.give(lock, pid)
        self._instance.report_engine_event(f"Started process {pid} for the run.", run, cls=type(self))

    def terminate(self, run_id: str) -> bool:
        """Ask the process of a run to end; a run without a process is canceled at once. False if it has ended."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        pid = run_files.process_of(self._directory, run_id)
        if pid is None:
            self._instance.report_run_canceled(run, "Canceled: the run had no process any more.")
            return True
        if pid:
            # If it ends meanwhile, the watcher reports the run as canceled.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                os.kill(pid, signal.SIGCONT)
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a run lives. Run monitoring fails the run if not."""
        if run_files.process_of(self._directory, run.run_id) is None:
            announce_retry(self._instance, run)
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its process has ended")
        return CheckRunHealthResult(WorkerStatus.RUNNING)
