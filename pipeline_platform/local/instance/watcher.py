"""Finds runs whose process ended without reporting it, and processes that hang or outlive their run.

Dagster's run monitoring looks only at runs that have started. The watcher also sees those that died while starting,
and it sees each within seconds. It runs as a thread of the daemon's process. It reads the files of runs, so it knows
the runs of an earlier daemon as well. If it fails, run monitoring still finds dead runs.
"""

import contextlib
import logging
import os
import threading
import time
from pathlib import Path

import dagster as dg

from pipeline_platform.local.instance import run_files
from pipeline_platform.local.services.process import is_stopped
from pipeline_platform.private_dagster import announce_retry

_LOG = logging.getLogger(__name__)
_INTERVAL_S = 3.0
# A process that is stopped for this long (SIGSTOP) is taken as dead. Nothing in the platform stops a run's process.
STOPPED_S = 30.0
# A process has this long to end after its run has.
LINGER_S = 60.0
# The launcher writes the process id within milliseconds of making the file.
_YOUNG_S = 30.0


class Watcher:
    """Looks at the processes of an instance's runs, once for each call of `look`."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._directory = run_files.directory_of(instance.root_directory)
        self._stopped_since: dict[str, float] = {}
        self._finished_since: dict[str, float] = {}

    def keep_looking(self, stop: threading.Event) -> None:
        """Look every few seconds until `stop` is set."""
        while not stop.wait(_INTERVAL_S):
            try:
                self.look()
            except Exception:  # noqa: BLE001 -- a watcher that ended would leave runs STARTED
                # The database may be away. The next look finds the same.
                _LOG.exception("the processes of runs cannot be looked at, which is tried again")

    def look(self) -> None:
        """Report runs that lost their process; end processes that are stopped, or whose run has ended."""
        files = run_files.files(self._directory)
        living = {run_id: run_files.process_of(self._directory, run_id) for run_id in files}
        if not living:
            return
        runs = {run.run_id: run for run in self._instance.get_runs(dg.RunsFilter(run_ids=list(living)))}
        for run_id, pid in living.items():
            if pid is None:
                self._note_end(files[run_id], runs.get(run_id))
            elif pid:
                self._end_if_useless(run_id, pid, is_finished=run_id not in runs or runs[run_id].is_finished)
        for since in (self._stopped_since, self._finished_since):
            for run_id in since.keys() - living.keys():
                del since[run_id]

    def _note_end(self, file: Path, run: dg.DagsterRun | None) -> None:
        with contextlib.suppress(FileNotFoundError):
            text, age_s = file.read_text(), time.time() - file.stat().st_mtime
            if not text and age_s < _YOUNG_S:
                return
            if text:
                # It is a zombie if this daemon started it.
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(int(text), os.WNOHANG)
        if run is not None and run.status is dg.DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(run, "Canceled: the process of the run has ended.")
        elif run is not None and run.status in (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED):
            announce_retry(self._instance, run)
            self._instance.report_run_failed(run, "The process of the run ended and did not say why.")
        file.unlink(missing_ok=True)

    def _end_if_useless(self, run_id: str, pid: int, *, is_finished: bool) -> None:
        limits = (
            (self._stopped_since, is_stopped(pid), STOPPED_S, "is stopped"),
            (self._finished_since, is_finished, LINGER_S, "has outlived its run"),
        )
        for since, is_so, limit_s, what in limits:
            _note(since, run_id, is_so=is_so)
            if run_id in since and time.monotonic() - since[run_id] >= limit_s:
                _LOG.warning("process %d of run %s %s for %.0f s: it is killed", pid, run_id, what, limit_s)
                run_files.end_group(pid)


def _note(since: dict[str, float], run_id: str, *, is_so: bool) -> None:
    if is_so:
        since.setdefault(run_id, time.monotonic())
    else:
        since.pop(run_id, None)
