"""What the processes of a run log: objects a line where JSON is asked for, and never a secret, whatever goes wrong."""

import base64
import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline_platform.local.services.process import free_port, spawn, stop
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.client import Client, UnexpectedAnswerError
from pipeline_platform_tests.support.gateway import event
from pipeline_platform_tests.support.migration import open_epoch
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]
_PLANTED = "pl4nted-s3cret"
_COMMANDS = {
    "gateway": ["-m", "pipeline_platform.gateway", "--port", "0"],
    "worker": ["-m", "pipeline_platform.worker", "--slot", "1"],
    "pool": ["-m", "pipeline_platform.worker", "--workers", "1"],
    "mirror": ["-m", "pipeline_platform.migration.mirror"],
    "supervisor": ["-m", "pipeline_platform.local.supervisor", "--no-dagster"],
    "up": ["-c", "from pipeline_platform.cli import main; main()", "up", "--no-dagster"],
}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_password_is_in_an_error(log_format: str, home: Path) -> None:
    """An address that cannot be read: every process says so, and none shows it."""
    logs = {process: home / process / "log" for process in _COMMANDS}
    with ExitStack() as running:
        for process, command in _COMMANDS.items():
            environment = {
                **{name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")},
                "PIPELINE_HOME": str(home / process),
                "PIPELINE_DATABASE_URL": f"postgresqlx://me:{_PLANTED}@127.0.0.1/x",
                "PIPELINE_REDIS_URL": f"redis://:{_PLANTED}@127.0.0.1:1/0",
                "PIPELINE_LOG_FORMAT": log_format,
                "PIPELINE_GATEWAY_PORT": "0",
                "PIPELINE_CONSOLE_PORT": "0",
            }
            child = spawn([sys.executable, *command], log=logs[process], cwd=Path.cwd(), env=environment)
            running.callback(stop, child, signal.SIGTERM, 10)
        for process, log in logs.items():
            wait_for(f"an error in the log of {process}", lambda log=log: "database_url" in log.read_text().lower(), 60)
    for process, log in logs.items():
        assert _PLANTED not in log.read_text(), process


def test_a_run_with_secrets_shows_none(settings: Settings, conn: Conn) -> None:
    key = add_tenant(conn, "acme").write_key
    header = "Bearer planted.mirror-token"
    open_epoch(conn, "shadow")
    forward = f"http://127.0.0.1:{free_port()}/v1/batch"
    conn.execute("UPDATE control.legacy_target SET forward_url = %s, headers = %s, retries = 0, configured_at = now()",
                 (forward, json.dumps({"Authorization": header})))  # fmt: skip
    with Platform(settings, log_format="json") as platform:
        platform.start_gateway()
        platform.start_workers(workers=1, kill_points=["worker.before_commit"])
        mirror = _mirror(settings)
        try:
            client = Client(platform.port, key)
            assert client.send([event()]).outcome == "acknowledged"
            with pytest.raises(UnexpectedAnswerError):
                Client(platform.port, f"{key}x").post("/v1/track", event())
            wait_for("the mirror to fail", lambda: conn.execute("SELECT 1 FROM legacy.losses").fetchone())
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid()"
            )
            wait_for("events again", lambda: client.send([event()]).outcome == "acknowledged")
            platform.await_drained(conn)
        finally:
            stop(mirror, signal.SIGTERM, 10)
    died = next(line for line in platform.log("workers").read_text().splitlines() if "died with" in line)
    assert json.loads(died)["batch_ids"] == [1]
    logs = {path.name: path.read_text() for path in (settings.home / "logs").iterdir()}
    assert logs.keys() == {"gateway.log", "workers.log", "mirror.log"}
    password = psycopg.conninfo.conninfo_to_dict(settings.database_url)["password"]
    basic = base64.b64encode(f"{key}:".encode()).decode()
    for name, text in logs.items():
        assert text, f"{name} is empty"
        for line in text.splitlines():
            assert {"timestamp", "level", "logger", "event"} <= json.loads(line).keys(), line
        for secret in (str(password), key, basic, header.split()[1]):
            assert secret not in text, f"{name} shows {secret}"


def _mirror(settings: Settings) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "PIPELINE_HOME": str(settings.home),
        "PIPELINE_DATABASE_URL": settings.database_url,
        "PIPELINE_REDIS_URL": settings.redis_url,
        "PIPELINE_LOG_FORMAT": "json",
    }
    log = settings.home / "logs" / "mirror.log"
    return spawn([sys.executable, "-m", "pipeline_platform.migration.mirror"], log=log, cwd=Path.cwd(), env=environment)
