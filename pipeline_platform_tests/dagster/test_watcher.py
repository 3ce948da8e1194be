"""The watcher of runs: what it reports of a process that ended, and which processes it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from pipeline_platform.local.instance import run_files, watcher
from pipeline_platform.local.instance.watcher import Watcher
from pipeline_platform_tests.support.waiting import wait_for

Start = Callable[[str], subprocess.Popen[bytes]]


@dg.op
def nothing() -> None:
    """Never run."""


@dg.job
def job() -> None:
    nothing()


@pytest.fixture
def directory(instance: dg.DagsterInstance) -> Path:
    return run_files.directory_of(instance.root_directory)


@pytest.fixture
def start(directory: Path) -> Iterator[Start]:
    """Starts a process that holds the file of a run, as the launcher does."""
    started: list[subprocess.Popen[bytes]] = []

    def start(run_id: str) -> subprocess.Popen[bytes]:
        lock = run_files.take(directory, run_id)
        command = [sys.executable, "-c", "import signal; signal.pause()"]
        process = subprocess.Popen(command, pass_fds=(lock,), start_new_session=True)
        run_files.give(lock, process.pid)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def run_in(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> str:
    return instance.create_run_for_job(job, status=status).run_id


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run
    return run.status


@pytest.mark.parametrize(
    ("before", "after"),
    [("STARTING", "FAILURE"), ("STARTED", "FAILURE"), ("CANCELING", "CANCELED"), ("SUCCESS", "SUCCESS")],
)
def test_a_run_whose_process_ended_gets_an_end(
    instance: dg.DagsterInstance, directory: Path, start: Start, before: str, after: str
) -> None:
    run_id = run_in(instance, dg.DagsterRunStatus(before))
    process = start(run_id)
    look = Watcher(instance).look
    look()
    assert status(instance, run_id).value == before
    process.kill()
    wait_for("its lock to be free", lambda: run_files.process_of(directory, run_id) is None)
    look()
    assert status(instance, run_id).value == after
    assert not run_files.files(directory)


def test_a_file_that_is_being_made_is_left_alone(instance: dg.DagsterInstance, directory: Path) -> None:
    run_id = run_in(instance, dg.DagsterRunStatus.STARTING)
    os.close(run_files.take(directory, run_id))
    Watcher(instance).look()
    assert status(instance, run_id) is dg.DagsterRunStatus.STARTING


def test_a_process_that_is_stopped_for_long_is_killed(
    instance: dg.DagsterInstance, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "STOPPED_S", 0.0)
    run_id = run_in(instance, dg.DagsterRunStatus.STARTED)
    process = start(run_id)
    look = Watcher(instance).look
    look()
    assert process.poll() is None
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    look()
    assert process.wait(10) == -signal.SIGKILL
    look()
    assert status(instance, run_id) is dg.DagsterRunStatus.FAILURE


def test_a_process_that_outlives_its_run_is_killed(
    instance: dg.DagsterInstance, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "LINGER_S", 0.0)
    process = start(run_in(instance, dg.DagsterRunStatus.CANCELED))
    Watcher(instance).look()
    assert process.wait(10) == -signal.SIGKILL


def test_a_run_has_one_process(directory: Path, start: Start) -> None:
    process = start("one")
    assert run_files.process_of(directory, "one") == process.pid
    with pytest.raises(BlockingIOError):
        run_files.take(directory, "one")
    assert run_files.end_all(directory, 10) == 1
    assert run_files.process_of(directory, "one") is None
    assert run_files.process_of(directory, "none") is None
