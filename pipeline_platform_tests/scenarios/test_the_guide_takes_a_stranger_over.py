"""Promise: who types what "Migrate from your pipeline" says moves over, from the first copied event to the end."""

import json
import os
import re
import shlex
import subprocess
import sys
import uuid
from pathlib import Path

import psycopg
import pytest

from pipeline_platform.local.services.endpoints import read_endpoints
from pipeline_platform.local.services.process import free_port
from pipeline_platform_tests.support.homes import temporary_home

pytestmark = pytest.mark.timeout(900)

_GUIDE = Path(__file__).parents[2] / "docs/how-to/migrate-from-your-pipeline.md"

# The table that the guide's example describes, over what the simulated pipeline writes.
_OLD_EVENTS = """
CREATE VIEW public.old_events AS
SELECT t.name AS account_name, e.message_id AS msg_id, e.arrived_at AS inserted_at, e.type AS kind, e.user_id AS uid,
       e.properties AS payload
FROM legacy.events AS e JOIN control.tenants AS t USING (tenant_id)
"""


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", _GUIDE.read_text(), re.MULTILINE | re.DOTALL)


def _events(path: Path) -> None:
    lines = [
        json.dumps({"tenant": f"tenant-{n % 3}", "type": "track", "event": "Clicked", "messageId": str(uuid.uuid4()),
                    "userId": f"u{n}", "properties": {"n": n}})
        for n in range(60)
    ]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")


def test_every_command_of_the_guide_in_its_order(tmp_path: Path) -> None:
    port = free_port()
    (described,) = _blocks("toml")
    (tmp_path / "legacy.toml").write_text(described.replace(":8090/", f":{port}/"))
    for name in ("events", "more", "later"):
        _events(tmp_path / f"{name}.ndjson")
    with temporary_home() as home:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")} | {
            "PIPELINE_HOME": str(home),
            "PIPELINE_GATEWAY_PORT": "0",
            "PIPELINE_CONSOLE_PORT": "0",
            "PIPELINE_LEGACY_PORT": str(port),
            # Days, in a test.
            "PIPELINE_PARITY_H": "0",
            "PIPELINE_PARITY_EVENTS_MIN": "1",
            "PIPELINE_CUTOVER_WATCH_H": "0",
        }

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-c", "from pipeline_platform.cli import main; main()", *words]
            return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)

        lines = [shlex.split(line) for block in _blocks("sh") for line in block.splitlines()]
        assert all(words[0] == "pipeline-platform" for words in lines)
        (up,) = [words for words in lines if words[1] == "up"]
        started = run(*up[1:], "--no-dagster")
        try:
            assert started.returncode == 0, started.stderr
            endpoints = read_endpoints(home)
            assert endpoints
            with psycopg.connect(endpoints.database_url, autocommit=True) as conn:
                conn.execute(_OLD_EVENTS)
                for words in lines:
                    if words[1] == "up":
                        continue
                    done = run(*words[1:])
                    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
                found = conn.execute(
                    "SELECT count(*), count(DISTINCT event_id), count(*) FILTER (WHERE pipeline = 'legacy')"
                    " FROM analytics.production"
                ).fetchone()
                assert found and found[:2] == (180, 180) and found[2] > 0
                phases = conn.execute("SELECT phase::text FROM control.epochs ORDER BY epoch").fetchall()
                assert [phase for (phase,) in phases] == [
                    "legacy_off", "legacy_only", "shadow", "platform_primary", "shadow", "platform_primary",
                    "legacy_off",
                ]  # fmt: skip
            assert {path.suffix for path in (tmp_path / "drift").iterdir()} == {".csv", ".parquet"}
        finally:
            run("down")
