"""Runs are processes of their own: whatever is killed, each run ends, is started again, or is canceled at once."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest

from pipeline_platform.local.instance import run_files
from pipeline_platform_tests.support.control_plane import ControlPlane
from pipeline_platform_tests.support.waiting import wait_for

_DEADLINE_S = 180.0
_SUCCESS, _FAILURE, _STARTED = (
    dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED,
)  # fmt: skip


@pytest.fixture
def plane(instance: dg.DagsterInstance, tmp_path: Path) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path) as plane:
        yield plane
        plane.gate.touch()
    run_files.end_all(run_files.directory_of(tmp_path), 5)


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run
    return run.status


def started(plane: ControlPlane, instance: dg.DagsterInstance) -> tuple[str, int]:
    """A run that waits at the gate: its id and its process."""
    plane.start("code", "daemon", "web")
    wait_for("the location", plane.loads, _DEADLINE_S)
    run_id = plane.launch()
    wait_for("the run to start", lambda: status(instance, run_id) is _STARTED, _DEADLINE_S)
    pid = run_files.process_of(run_files.directory_of(plane.home), run_id)
    assert pid
    return run_id, pid


def test_a_run_outlives_the_code_server_the_daemon_and_the_web_server(
    plane: ControlPlane, instance: dg.DagsterInstance
) -> None:
    run_id, _ = started(plane, instance)
    for name in ("code", "daemon", "web"):
        plane.kill(name)
    plane.gate.touch()
    wait_for("the run to succeed", lambda: status(instance, run_id) is _SUCCESS, _DEADLINE_S)


def test_a_killed_run_is_started_again(plane: ControlPlane, instance: dg.DagsterInstance) -> None:
    run_id, pid = started(plane, instance)
    os.kill(pid, signal.SIGKILL)
    wait_for("the run to fail", lambda: status(instance, run_id) is _FAILURE, _DEADLINE_S)
    assert not psutil.pid_exists(pid)
    plane.gate.touch()
    wait_for("its repetition", lambda: instance.get_runs(dg.RunsFilter(statuses=[_SUCCESS])), _DEADLINE_S)
    assert len(instance.get_runs()) == 2
    wait_for("no process to be left", lambda: not run_files.files(run_files.directory_of(plane.home)))


def test_terminate_ends_a_run_and_says_so_at_once_where_no_process_is_left(
    plane: ControlPlane, instance: dg.DagsterInstance
) -> None:
    living, _ = started(plane, instance)
    assert plane.terminate(living)["__typename"] == "TerminateRunSuccess"
    canceled = dg.DagsterRunStatus.CANCELED
    wait_for("the run to be canceled", lambda: status(instance, living) is canceled, _DEADLINE_S)

    dead = plane.launch()
    wait_for("the run to start", lambda: status(instance, dead) is _STARTED, _DEADLINE_S)
    plane.kill("daemon")
    pid = run_files.process_of(run_files.directory_of(plane.home), dead)
    assert pid
    os.kill(pid, signal.SIGKILL)
    wait_for("its end", lambda: run_files.process_of(run_files.directory_of(plane.home), dead) is None)
    assert plane.terminate(dead)["__typename"] == "TerminateRunSuccess"
    assert status(instance, dead) is canceled


def test_a_stopped_daemon_ends_its_runs_and_the_next_one_repeats_them(
    plane: ControlPlane, instance: dg.DagsterInstance
) -> None:
    run_id, pid = started(plane, instance)
    plane.stop("daemon")
    assert not psutil.pid_exists(pid)
    assert status(instance, run_id) is _FAILURE
    plane.gate.touch()
    plane.start("daemon")
    wait_for("its repetition", lambda: instance.get_runs(dg.RunsFilter(statuses=[_SUCCESS])), _DEADLINE_S)


def test_a_backfill_under_way_waits_for_the_code_server(plane: ControlPlane, instance: dg.DagsterInstance) -> None:
    """A daemon that looks at it before the code server serves fails it for good."""
    plane.start("code", "web")
    wait_for("the location", plane.loads, _DEADLINE_S)
    backfill_id = plane.launch_backfill(["2026-10-01-00:00", "2026-10-01-01:00"])
    plane.start("daemon")
    wait_for("its run", lambda: instance.get_runs(dg.RunsFilter(statuses=[_STARTED])), _DEADLINE_S)
    for name in ("code", "web", "daemon"):
        plane.kill(name)
    plane.gate.touch()
    plane.start("daemon")
    plane.start("code")

    def state() -> str:
        backfill = instance.get_backfill(backfill_id)
        assert backfill
        assert backfill.status.value not in ("FAILING", "FAILED"), backfill.error
        return backfill.status.value

    wait_for("the backfill", lambda: state() == "COMPLETED_SUCCESS", _DEADLINE_S)
