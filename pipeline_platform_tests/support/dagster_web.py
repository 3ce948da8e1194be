"""The guarded web server of Dagster over a location with one job, with an instance of its own."""

import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from pipeline_platform.local.services.process import free_port, log_tail, spawn, stop
from pipeline_platform.local.supervisor.programs import answers
from pipeline_platform_tests.support.waiting import wait_for

_DEFINITIONS = """
import dagster as dg

@dg.op
def nothing():
    pass

@dg.job
def harmless():
    nothing()

defs = dg.Definitions(jobs=[harmless])
"""
_DEADLINE_S = 300.0
LAUNCH = (
    'mutation{launchRun(executionParams:{selector:{jobName:"harmless",repositoryName:"__repository__",'
    'repositoryLocationName:"probe"}}){__typename}}'
)


class DagsterWeb:
    """Its process; `url` is what a person opens."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._home = home
        (home / "probe.py").write_text(_DEFINITIONS)
        (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\nnux:\n  enabled: false\n")
        file = f"{{relative_path: {home / 'probe.py'}, location_name: probe}}"
        (home / "workspace.yaml").write_text(f"load_from:\n- python_file: {file}\n")

    def __enter__(self) -> Self:
        module = ["-m", "pipeline_platform.local.supervisor.dagster_web", "--port", str(self.port)]
        command = [sys.executable, *module, "--workspace", str(self._home / "workspace.yaml")]
        log = self._home / "web.log"
        environment = {**os.environ, "DAGSTER_HOME": str(self._home)}
        self._process = spawn(command, log=log, cwd=self._home, env=environment)
        try:
            wait_for(
                "Dagster's web server",
                lambda: self._process.poll() is not None or answers(f"{self.url}/server_info"),
                _DEADLINE_S,
            )
            assert self._process.poll() is None, log_tail(log)
        except BaseException:
            stop(self._process, signal.SIGKILL, 5)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop(self._process, signal.SIGTERM, 30)

    def ask(self, query: str) -> Any:
        """What GraphQL answers to a program."""
        return httpx.post(f"{self.url}/graphql", json={"query": query}, timeout=60).raise_for_status().json()["data"]

    def runs(self) -> int:
        """Runs that were launched."""
        return len(self.ask("{runsOrError{...on Runs{results{runId}}}}")["runsOrError"]["results"])

    def forged(self) -> int:
        """Materializations of the asset `forged` that were reported from outside."""
        found = self.ask('{assetOrError(assetKey:{path:["forged"]}){...on Asset{assetMaterializations{timestamp}}}}')
        return len(found["assetOrError"].get("assetMaterializations", []))
