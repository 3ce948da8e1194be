"""What Dagster is shown: it loads alone and connects to nothing, and its graph is the one below."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from pipeline_platform.definitions import build_defs

ROOT = Path(__file__).parents[2]

_LOAD = """
import socket, sys
def refuse(*args):
    raise AssertionError(f"connects while loading: {args}")
socket.socket.connect = socket.create_connection = refuse
import psycopg
psycopg.Connection.connect = refuse
from pipeline_platform.definitions import defs
import dagster as dg
dg.Definitions.validate_loadable(defs)
print(len(list(defs.resolve_asset_graph().get_all_asset_keys())))
"""


def test_definitions_load_in_a_fresh_interpreter_without_servers_settings_or_warnings() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIPELINE_", "DAGSTER_"))}
    loaded = subprocess.run(
        [sys.executable, "-c", _LOAD],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.strip() == "18"
    assert loaded.stderr == ""


@pytest.mark.parametrize("command", [["dagster", "definitions", "validate"], ["dg", "check", "defs"]])
def test_dagsters_commands_work_in_a_checkout_with_nothing_else_typed(command: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIPELINE_", "DAGSTER_"))}
    program = str(Path(sys.executable).with_name(command[0]))
    done = subprocess.run(
        [program, *command[1:]], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Error" not in done.stdout + done.stderr


@pytest.mark.parametrize(("home", "status"), [("/somewhere", "RUNNING"), ("", "STOPPED")])
def test_sensors_and_schedules_are_on_in_an_instance_that_is_kept(home: str, status: str) -> None:
    code = "from pipeline_platform.defs import automation as a; print(a.SENSORS.value, a.SCHEDULES.value)"
    environment = {**os.environ, "DAGSTER_HOME": home}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [status, status]


def test_the_data_plane_does_not_load_dagster() -> None:
    code = "import sys, pipeline_platform.worker.pool, pipeline_platform.worker.drain; print('dagster' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "False"


def test_the_asset_graph() -> None:
    graph = build_defs().resolve_asset_graph()
    found = {
        key.to_user_string(): {
            "deps": sorted(parent.to_user_string() for parent in graph.get(key).parent_keys),
            "partitions": str(graph.get(key).partitions_def),
            "checks": sorted(check.name for check in graph.get_check_keys_for_assets({key})),
            "group": graph.get(key).group_name,
            "kinds": sorted(graph.get(key).kinds),
        }
        for key in graph.get_all_asset_keys()
    }
    hourly = "Hourly, starting 2026-10-01-00:00 UTC."
    external = "None"
    so_far = "Hourly, starting 2026-10-01-00:00 UTC. End offsetted by 1 partition."
    daily = "Daily, starting 2026-10-01 UTC."
    delivered = ["delivered_events"]

    def asset(deps: list[str], partitions: str, checks: list[str], group: str, kinds: list[str]) -> dict[str, object]:
        return {"deps": deps, "partitions": partitions, "checks": checks, "group": group, "kinds": kinds}

    # From left to right: an hour is accepted, enriched and delivered; all else begins there. Exports are off.
    assert found == {
        "clients": asset([], external, [], "outside", ["rudderstack", "segment"]),
        "legacy_output": asset([], external, [], "outside", ["postgres", "table"]),
        "accepted_events": asset(["clients"], hourly, [], "events", ["postgres"]),
        "enriched_events": asset(["accepted_events"], hourly, [], "events", ["python", "redis"]),
        "delivered_events": asset(["enriched_events"], hourly, ["account_holds"], "events", ["postgres", "table"]),
        "rollups": asset(delivered, hourly, ["same_totals"], "customers", ["postgres", "table"]),
        "daily_report": asset(delivered, daily, ["nothing_lost"], "customers", ["html"]),
        "archived_hours": asset(delivered, "None", ["all_archived"], "retention", ["parquet"]),
        "retained_hours": asset(["archived_hours"], "None", ["nothing_overdue"], "retention", ["postgres"]),
        "exported_hours": asset(delivered, external, [], "warehouse", ["parquet"]),
        "warehouse_tables": asset(["exported_hours"], external, [], "outside", ["table"]),
        "dashboards": asset(["daily_report", "rollups"], external, [], "outside", ["dashboard"]),
        "reconciled_hours": asset(
            ["delivered_events", "legacy_output"], so_far, ["no_drift"], "migration", ["postgres"]
        ),
        "dropped_events": asset(["reconciled_hours"], so_far, ["nothing_missing"], "migration", ["postgres"]),
        "recovered_events": asset(["dropped_events"], so_far, [], "migration", ["postgres"]),
        "dead_letters": asset(["enriched_events"], "None", [], "dead_letters", ["postgres"]),
        "replay_diffs": asset(delivered, so_far, [], "replay", ["postgres", "python"]),
        "replayed_hours": asset(["replay_diffs"], so_far, [], "replay", ["postgres", "python"]),
    }


def test_hours_are_offered_once_they_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime

    from pipeline_platform.defs.hours import HOURS, hour_of, key_of

    noon = datetime(2027, 3, 28, 12, 30, tzinfo=UTC)
    with dg.partition_loading_context(effective_dt=noon):
        assert HOURS.get_last_partition_key() == "2027-03-28-11:00"
    assert key_of(hour_of("2027-03-28-02:00")) == "2027-03-28-02:00"
