"""Promise: a backfill on Celery is spread over workers, and is done although one of them is killed in the middle.

The workers are processes of this machine with homes of their own, as on machines that share nothing but the servers.
`make celery` runs it: three minutes, most of them waits of the daemon.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest
import yaml

from pipeline_platform.defs.hours import key_of
from pipeline_platform.local.instance.configuration import write_configuration
from pipeline_platform.local.services.process import log_tail
from pipeline_platform.local.supervisor.dagster import dagster_home, storage_environment
from pipeline_platform_tests.support.planting import open_hour, past_hours, plant
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.whole_platform import WholePlatform

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]

_HOURS, _HOURS_A_RUN, _EVENTS = 24, 6, 3
_HOLD = "SELECT pg_advisory_lock_shared(queue.hour_lock(%s))"
_RUNS = "SELECT count(DISTINCT run_id) FROM run_tags WHERE key = 'dagster-celery/task_id'"
# Of the runs of the backfill that are under way: the text with the process that executes each.
_UNDER_WAY = """
SELECT r.run_id, e.event FROM runs AS r JOIN run_tags AS t USING (run_id) JOIN event_logs AS e USING (run_id)
WHERE r.status = 'STARTED' AND t.key = 'dagster/backfill' AND e.event LIKE '%%Executing steps in process%%'
"""
_RETRIED = "SELECT count(*) FROM runs WHERE run_body LIKE '%%dagster/retry_number%%'"


def _on_celery(home: Path) -> None:
    """What the guide says to write into dagster.yaml."""
    instance = dagster_home(home)
    instance.mkdir(parents=True)
    write_configuration(instance)
    file = instance / "dagster.yaml"
    sections = yaml.safe_load(file.read_text())
    sections["run_launcher"] = {
        "module": "pipeline_platform.celery_runs.launcher",
        "class": "WatchedCeleryRunLauncher",
    }
    file.write_text(yaml.safe_dump(sections))


@contextmanager
def _worker(platform: WholePlatform, home: Path) -> Iterator[psutil.Process]:
    """A worker with one process for runs."""
    home.mkdir()
    found = platform.endpoints
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIPELINE_", "DAGSTER_"))}
    environment |= {
        "DAGSTER_HOME": str(home / "dagster"),
        "PIPELINE_HOME": str(home / "pipeline"),
        "PIPELINE_DATABASE_URL": found.database_url,
        "PIPELINE_REDIS_URL": found.redis_url,
        "PIPELINE_HOUR_WAIT_S": "600",
        **storage_environment(found.database_url),
    }
    (home / "dagster").mkdir()
    (home / "dagster" / "dagster.yaml").write_text((dagster_home(platform.home) / "dagster.yaml").read_text())
    (home / "pipeline").mkdir()
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "pipeline_platform.celery_runs.worker",
        "worker",
        "--loglevel",
        "INFO",
    ]
    with (home / "log").open("wb") as log:
        started = subprocess.Popen(
            [*command, "--concurrency", "1", "--hostname", f"{home.name}@%h"],
            env=environment, stdout=log, stderr=log, cwd=home, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for("the worker", lambda: " ready." in (home / "log").read_text(), 120)
        yield psutil.Process(started.pid)
    except BaseException:
        print(f"--- the end of the log of {home.name}\n{log_tail(home / 'log', 60)}")
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def _the_one_under_way(platform: WholePlatform) -> int | None:
    """The process of the backfill's run that is under way; None if there are more or none."""
    found = {
        (run_id, int(pid)) for run_id, event in platform.dagster(_UNDER_WAY) for pid in re.findall(r"pid: (\d+)", event)
    }
    return found.pop()[1] if len(found) == 1 else None


def test_a_backfill_is_spread_and_survives_a_killed_worker(home: Path, tmp_path: Path) -> None:
    _on_celery(home)
    hours = past_hours(_HOURS)
    names = [key_of(hour) for hour in hours]
    with WholePlatform(home, dagster_hours_a_run=str(_HOURS_A_RUN)) as platform, ExitStack() as stack:
        conn = stack.enter_context(psycopg.connect(platform.endpoints.database_url, autocommit=True))
        tenant = add_tenant(conn).tenant_id
        held = hours[2]
        open_hour(conn, held)
        conn.execute(_HOLD, (held,))
        for hour in hours:
            plant(conn, tenant, hour, _EVENTS)
        first = stack.enter_context(_worker(platform, tmp_path / "first"))
        backfill = platform.launch(names)
        second = stack.enter_context(_worker(platform, tmp_path / "second"))
        others = _HOURS - _HOURS_A_RUN + 2
        wait_for("the other runs", lambda: platform.materialized("delivered_events", names) >= others, 300)
        pid = wait_for("the run that waits at the held hour", lambda: _the_one_under_way(platform), 120)
        [victim] = [worker for worker in (first, second) if pid in {each.pid for each in worker.children()}]
        for process in [*victim.children(recursive=True), victim]:
            process.kill()
        conn.execute("SELECT pg_advisory_unlock_all()")
        wait_for("the backfill", lambda: platform.status(backfill) == "COMPLETED_SUCCESS", 400)
        assert platform.materialized("delivered_events", names) == _HOURS
        assert platform.dagster(_RUNS)[0][0] >= _HOURS // _HOURS_A_RUN
        assert platform.dagster(_RETRIED)[0][0] >= 1, "the lost run was started again"
        assert conn.execute("SELECT count(*) FROM analytics.events").fetchone() == (_HOURS * _EVENTS,)
        platform.await_at_rest(180)
        for worker in ("first", "second"):
            left = [path for path in (tmp_path / worker / "pipeline").rglob("*") if path.is_file()]
            assert left == [], "nothing of a run is on a worker's disk"
