"""Dagster's three processes over a location of a test's own, each to be killed and started again by name.

The location has the job `gated`, whose op waits until a file exists, and the hourly asset `counted`, whose backfill is
one run. The instance is that of the environment (DAGSTER_HOME), as the fixture `instance` sets it.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from pipeline_platform.local.services.process import free_port, log_tail, spawn, stop
from pipeline_platform.local.supervisor.programs import answers
from pipeline_platform_tests.support.waiting import wait_for

_DEFINITIONS = """
import time
from pathlib import Path
import dagster as dg

GATE = Path({gate!r})

def wait_for_gate():
    while not GATE.exists():
        time.sleep(0.05)

@dg.op
def wait():
    wait_for_gate()

@dg.job(executor_def=dg.in_process_executor)
def gated():
    wait()

@dg.asset(
    partitions_def=dg.HourlyPartitionsDefinition(start_date="2026-10-01-00:00"),
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def counted(context) -> None:
    wait_for_gate()

defs = dg.Definitions(assets=[counted], jobs=[gated], executor=dg.in_process_executor)
"""
_SELECTOR = '{repositoryName:"__repository__",repositoryLocationName:"probe",jobName:"gated"}'
_LAUNCH = f"mutation{{launchRun(executionParams:{{selector:{_SELECTOR}}}){{...on LaunchRunSuccess{{run{{runId}}}}}}}}"
_BACKFILL = """mutation($names:[String!]){launchPartitionBackfill(backfillParams:{
  assetSelection:[{path:["counted"]}],partitionNames:$names,fromFailure:false}){
  ...on LaunchBackfillSuccess{backfillId}}}"""
_TERMINATE = """mutation($id:String!){terminateRun(runId:$id){
  __typename ...on TerminateRunFailure{message} ...on TerminateRunSuccess{run{status}}}}"""
_LOADED = "{workspaceOrError{...on Workspace{locationEntries{loadStatus locationOrLoadError{__typename}}}}}"
_DEADLINE_S = 300.0


class ControlPlane:
    """The processes `code`, `daemon` and `web`; leaving the context kills all of them and all runs."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.gate = home / "gate"
        self._socket = home / "code.sock"
        self._port = free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        (home / "probe.py").write_text(_DEFINITIONS.format(gate=str(self.gate)))
        server = f"{{socket: {self._socket}, location_name: probe}}"
        (home / "workspace.yaml").write_text(f"load_from:\n- grpc_server: {server}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._processes):
            self.kill(name)
            if error is not None:
                print(f"--- the end of {name}.log\n{log_tail(self.home / f'{name}.log', 60)}")

    def start(self, *names: str) -> None:
        """Start processes and wait until code server and web server serve, where they are among them."""
        supervisor = "pipeline_platform.local.supervisor"
        workspace = ("--workspace", str(self.home / "workspace.yaml"))
        code = ("-m", "dagster", "api", "grpc", "--socket", str(self._socket), "--python-file", "probe.py")
        commands = {
            "code": (*code, "--location-name", "probe"),
            "daemon": ("-m", f"{supervisor}.dagster_daemon", "--socket", str(self._socket), *workspace),
            "web": ("-m", f"{supervisor}.dagster_web", "--port", str(self._port), *workspace),
        }
        retry = {"DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR": "1"}
        for name in names:
            log = self.home / f"{name}.log"
            command = [sys.executable, *commands[name]]
            self._processes[name] = spawn(command, log=log, cwd=self.home, env={**os.environ, **retry})
        if "code" in names:
            wait_for("the code server", self._socket.exists, _DEADLINE_S)
        if "web" in names:
            wait_for("the web server", lambda: answers(f"http://127.0.0.1:{self._port}/server_info"), _DEADLINE_S)

    def kill(self, name: str) -> None:
        """SIGKILL; returns when it is dead. The socket of a killed code server stays, as it does in use."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def stop(self, name: str) -> None:
        """SIGTERM, as `down` sends it; returns when it has ended."""
        stop(self._processes.pop(name), signal.SIGTERM, 60)

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text()

    def forget_socket(self) -> None:
        self._socket.unlink(missing_ok=True)

    def ask(self, query: str, **variables: Any) -> Any:
        """What GraphQL answers."""
        body = {"query": query, "variables": variables}
        answer = httpx.post(f"http://127.0.0.1:{self._port}/graphql", json=body, timeout=60).raise_for_status().json()
        assert "errors" not in answer, answer
        return answer["data"]

    def loads(self) -> bool:
        """Whether the web server knows the location; it is asked to look again if not."""
        (entry,) = self.ask(_LOADED)["workspaceOrError"]["locationEntries"]
        if (entry["locationOrLoadError"] or {}).get("__typename") == "RepositoryLocation":
            return True
        self.ask("mutation{reloadWorkspace{__typename}}")
        return False

    def launch(self) -> str:
        """Launch the job; the run's id."""
        return self.ask(_LAUNCH)["launchRun"]["run"]["runId"]

    def launch_backfill(self, names: list[str]) -> str:
        """Launch a backfill of the asset; its id."""
        return self.ask(_BACKFILL, names=names)["launchPartitionBackfill"]["backfillId"]

    def terminate(self, run_id: str) -> dict[str, Any]:
        """Terminate a run as the UI does."""
        return self.ask(_TERMINATE, id=run_id)["terminateRun"]
