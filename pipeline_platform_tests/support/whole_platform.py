"""`up` with Dagster on servers of its own, its processes to be killed or stopped by name, and a backfill in its UI."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
import psycopg

from pipeline_platform.local.instance import run_files
from pipeline_platform.local.services import Endpoints, read_endpoints
from pipeline_platform.local.services.process import log_tail
from pipeline_platform.local.supervisor.dagster import dagster_home
from pipeline_platform_tests.support.waiting import wait_for

_START_S = 300.0
_LAUNCH = """mutation($names:[String!]){launchPartitionBackfill(backfillParams:{
  assetSelection:[{path:["accepted_events"]},{path:["enriched_events"]},{path:["delivered_events"]}],
  partitionNames:$names,fromFailure:false}){__typename ...on LaunchBackfillSuccess{backfillId}}}"""
_UNFINISHED = "SELECT count(*) FROM runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED')"
_STARTED = """
SELECT r.run_id FROM runs AS r JOIN run_tags AS t USING (run_id)
WHERE r.status = 'STARTED' AND t.key = 'dagster/backfill'
"""
_HELD = """
SELECT (SELECT count(*) FROM pending_steps) + (SELECT count(*) FROM concurrency_slots WHERE run_id IS NOT NULL)
"""
_MATERIALIZED = """
SELECT count(DISTINCT partition) FROM event_logs
WHERE dagster_event_type = 'ASSET_MATERIALIZATION' AND asset_key = %s AND partition = ANY(%s)
"""


class WholePlatform:
    """The whole platform in `home`; leaving the context ends it."""

    def __init__(self, home: Path, **more: str) -> None:
        """more: settings by their lower-case names."""
        self.home = home
        self._more = {f"PIPELINE_{name.upper()}": value for name, value in more.items()}
        self._supervisor: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._supervisor
        self._supervisor.send_signal(signal.SIGCONT)
        self._supervisor.terminate()
        self._supervisor.wait()
        if error is not None:
            for name in ("up", "dagster-daemon", "dagster-code"):
                print(f"--- the end of {name}.log\n{log_tail(self.home / 'logs' / f'{name}.log', 60)}")

    def start(self) -> None:
        """Start `up`; returns when everything serves."""
        ours = {f"PIPELINE_{name}_PORT": "0" for name in ("GATEWAY", "CONSOLE", "DAGSTER")}
        # A run waits for the hour that the test holds.
        ours |= {"PIPELINE_HOME": str(self.home), "PIPELINE_WORKERS": "1", "PIPELINE_HOUR_WAIT_S": "900"} | self._more
        others = {name: value for name, value in os.environ.items() if not name.startswith(("PIPELINE_", "DAGSTER_"))}
        (self.home / "logs").mkdir(exist_ok=True)
        with (self.home / "logs" / "up.log").open("ab") as log:
            command = [sys.executable, "-m", "pipeline_platform.local.supervisor"]
            self._supervisor = subprocess.Popen(command, env=others | ours, stdout=log, stderr=log, cwd=self.home)
        wait_for("the platform to serve", self._serves, _START_S)

    def _serves(self) -> bool:
        assert self._supervisor and self._supervisor.poll() is None, log_tail(self.home / "logs" / "up.log")
        found = read_endpoints(self.home)
        return found is not None and found.pids.get("supervisor") == self._supervisor.pid

    @property
    def endpoints(self) -> Endpoints:
        found = read_endpoints(self.home)
        assert found
        return found

    def kill(self, name: str) -> None:
        """SIGKILL to a child, a run or the supervisor, which is then started again."""
        if name == "supervisor":
            assert self._supervisor
            self._supervisor.kill()
            self._supervisor.wait()
            self.start()
        else:
            self.signal(name, signal.SIGKILL)

    def signal(self, name: str, number: signal.Signals) -> None:
        """A signal to a child, to the supervisor, or to a run of a backfill (`run`)."""
        pid = self.run() if name == "run" else self.endpoints.pids[name]
        assert pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def await_another(self, name: str, pid: int) -> None:
        """Wait until a child has another process than `pid`."""
        wait_for(f"another {name}", lambda: self.endpoints.pids.get(name, pid) != pid, 180)

    def run(self) -> int | None:
        """The process of a run that has begun an hour; None if there is none."""
        directory = run_files.directory_of(dagster_home(self.home))
        with contextlib.suppress(psycopg.OperationalError):
            rows = self.dagster(
                "SELECT run_id FROM runs WHERE status = 'STARTED' AND run_body LIKE '%%dagster/backfill%%'"
            )
            for (run_id,) in rows:
                if pid := run_files.process_of(directory, run_id):
                    return pid
        return None

    def dagster(self, query: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of Dagster's own database."""
        with psycopg.connect(self.endpoints.database_url.replace("/pipeline", "/dagster"), autocommit=True) as conn:
            return conn.execute(query, params).fetchall()  # pyright: ignore[reportArgumentType, reportCallIssue]

    def ask(self, query: str, **variables: Any) -> Any:
        body = {"query": query, "variables": variables}
        answer = httpx.post(f"{self.endpoints.dagster}/graphql", json=body, timeout=60).raise_for_status().json()
        assert "errors" not in answer, answer
        return answer["data"]

    def launch(self, names: list[str]) -> str:
        """Launch a backfill of the group `events`, as the UI does; its id."""
        launched = self.ask(_LAUNCH, names=names)["launchPartitionBackfill"]
        return launched["backfillId"]

    def status(self, backfill: str) -> str:
        with contextlib.suppress(psycopg.OperationalError):
            return self.dagster("SELECT status FROM bulk_actions WHERE key = %s", [backfill])[0][0]
        return "unknown"

    def materialized(self, asset: str, names: list[str]) -> int:
        """How many of the partitions have a record."""
        return self.dagster(_MATERIALIZED, [f'["{asset}"]', names])[0][0]

    def await_at_rest(self, deadline_s: float) -> None:
        """Wait until no run is under way; then none holds a slot, and no process of a run or zombie is left."""
        wait_for("all runs to end", lambda: self.dagster(_UNFINISHED) == [(0,)], deadline_s)
        wait_for("all slots to be free", lambda: self.dagster(_HELD) == [(0,)], 90)
        directory = run_files.directory_of(dagster_home(self.home))
        wait_for("all processes of runs to end", lambda: not run_files.files(directory), 90)
        assert self._supervisor
        tree = psutil.Process(self._supervisor.pid).children(recursive=True)
        zombies = [each for each in tree if _is_zombie(each)]
        wait_for("no zombies", lambda: not any(_is_zombie(each) for each in zombies), 30)


def _is_zombie(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return False
