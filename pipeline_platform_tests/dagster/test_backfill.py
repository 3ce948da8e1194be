"""`dagster dev` as a user meets it: no warning to puzzle over, and a backfill from the UI is one run, hour by hour."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import psycopg
import pytest

from pipeline_platform.defs.hours import key_of
from pipeline_platform.event.types import TenantId
from pipeline_platform.local.services.process import free_port
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.planting import past_hours, plant
from pipeline_platform_tests.support.platform import Platform

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]
STAGES = ("accepted_events", "enriched_events", "delivered_events")
_DEADLINE_S = 300

# Dagster's own, whatever is defined: its advice to use another command, and its first start on a new database.
_OF_THE_LIBRARY = re.compile(r"SupersessionWarning: Function `dev_command`|No cursor for event type")

_SERVES = "{workspaceOrError {... on Workspace {locationEntries {loadStatus}}}}"
_LAUNCH = """mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {__typename ... on LaunchBackfillSuccess {backfillId}}
}"""
_BACKFILL = """query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) {... on PartitionBackfill {status}}
  runsOrError(filter: {tags: [{key: "dagster/backfill", value: $id}]}) {... on Runs {results {runId status}}}
}"""


class WebServer:
    """What the UI asks of it."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = httpx.post(self._url, json={"query": query, "variables": variables}, timeout=60).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def serves(self) -> bool:
        try:
            entries = self.ask(_SERVES)["workspaceOrError"]["locationEntries"]
        except httpx.TransportError:
            return False
        return [entry["loadStatus"] for entry in entries] == ["LOADED"]

    def ended(self, backfill: str) -> dict[str, Any] | None:
        """The backfill with its runs, once it has ended."""
        found = self.ask(_BACKFILL, id=backfill)
        state = found["partitionBackfillOrError"]["status"]
        return None if state in {"REQUESTED", "COMPLETING"} else {"state": state, **found["runsOrError"]}


def wait_for(find: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + _DEADLINE_S
    while not (found := find()):
        assert time.monotonic() < deadline, f"{what} after {_DEADLINE_S} s"
        time.sleep(1)
    return found


@contextmanager
def dagster_dev(settings: Settings, directory: Path, log: Path) -> Iterator[WebServer]:
    """`dagster dev` on the workspace.yaml that is shipped, stopped as Ctrl-C stops it."""
    port = free_port()
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(ROOT / "workspace.yaml"), "-p", str(port)]
    environment = os.environ | {
        "PIPELINE_DATABASE_URL": settings.database_url,
        "PIPELINE_REDIS_URL": settings.redis_url,
        "PIPELINE_HOME": str(settings.home),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdout=output, stderr=output, start_new_session=True,
            # A shell that runs the tests in the background lets them ignore Ctrl-C, and what they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )  # fmt: skip
        try:
            yield WebServer(port)
            _interrupt(process)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, again every 10 s: Dagster can lose one that arrives while it starts or reaps a child."""
    for _ in range(6):
        os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
            return
    raise AssertionError("dagster dev does not end")


def test_a_backfill_from_the_ui_is_one_run_with_every_hour_and_its_check(
    settings: Settings,
    instance: dg.DagsterInstance,
    conn: psycopg.Connection[Any],
    tenants: list[TenantId],
    tmp_path: Path,
) -> None:
    hours = past_hours(12)
    keys = [key_of(hour) for hour in hours]
    for hour in hours:
        plant(conn, tenants[0], hour)
    log = tmp_path / "dagster-dev.log"

    with dagster_dev(settings, tmp_path, log) as server:
        wait_for(server.serves, "dagster dev does not serve")
        assets = [{"path": [asset]} for asset in STAGES]
        launched = server.ask(_LAUNCH, params={"assetSelection": assets, "partitionNames": keys, "fromFailure": False})
        backfill = launched["launchPartitionBackfill"]["backfillId"]
        found = wait_for(lambda: server.ended(backfill), "the backfill has not ended")
        replayed = _replay(server, settings, keys)

    assert replayed["state"] == "COMPLETED_SUCCESS" and len(replayed["results"]) == 1
    assert _materialized(instance, replayed["results"][0]["runId"]) == [("replay_diffs", key) for key in keys]
    assert conn.execute("SELECT state::text, reason FROM replay.replays").fetchall() == [("diffed", "a test")]
    assert found["state"] == "COMPLETED_SUCCESS"
    (run,) = found["results"]
    assert run["status"] == "SUCCESS"
    assert _materialized(instance, run["runId"]) == [(asset, key) for key in keys for asset in STAGES]
    assert _passed(instance, run["runId"]) == [*keys, None]
    warnings = [line for line in log.read_text().splitlines() if re.search(r"warning|error", line, re.IGNORECASE)]
    assert [line for line in warnings if not _OF_THE_LIBRARY.search(line)] == []


def _replay(server: WebServer, settings: Settings, keys: list[str]) -> dict[str, Any]:
    """A replay over all hours, with its run config, as the UI launches it."""
    config = {"ops": {"replay_hours": {"config": {"reason": "a test"}}}}
    with Platform(settings) as processes:
        processes.start_workers()
        assets = [{"path": [asset]} for asset in ("replay_diffs",)]
        params = {"assetSelection": assets, "partitionNames": keys, "fromFailure": False,
                  "runConfigData": json.dumps(config)}  # fmt: skip
        backfill = server.ask(_LAUNCH, params=params)["launchPartitionBackfill"]["backfillId"]
        return wait_for(lambda: server.ended(backfill), "the replay has not ended")


def _materialized(instance: dg.DagsterInstance, run_id: str) -> list[tuple[str, str | None]]:
    records = instance.get_records_for_run(
        run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION, limit=1000
    ).records
    found = [record.event_log_entry.asset_materialization for record in records]
    return [(each.asset_key.to_user_string(), each.partition) for each in found if each]


def _passed(instance: dg.DagsterInstance, run_id: str) -> list[str | None]:
    """The partitions whose check passed, in order; None: the run's."""
    records = instance.get_records_for_run(
        run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION, limit=1000
    ).records
    found = [record.event_log_entry.dagster_event for record in records]
    evaluations = [event.asset_check_evaluation_data for event in found if event]
    return [each.partition for each in evaluations if each.passed]
