"""Retention from Dagster: what is past it goes, what is needed stays and is named, and a day late is a failed check."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from pipeline_platform.event.types import TenantId
from pipeline_platform_tests.support.planting import open_hour, past_hours, plant

Conn = psycopg.Connection[Any]


def sealed_ago(conn: Conn, hour: datetime, ago: timedelta) -> None:
    conn.execute("UPDATE queue.hours SET sealed_at = now() - %s, seals = 1 WHERE hour = %s", (ago, hour))


def run(defs: dg.Definitions, instance: dg.DagsterInstance) -> tuple[dict[str, Any], bool]:
    """The metadata of what the schedule's job recorded, and whether its check passed."""
    schedule = defs.resolve_schedule_def("hourly_retention")
    result = defs.resolve_job_def(schedule.job_name).execute_in_process(instance=instance)
    assert result.success
    found = result.asset_materializations_for_node("retained_hours")
    evaluation = next(one for one in result.get_asset_check_evaluations() if one.check_name == "nothing_overdue")
    return {name: value.value for name, value in found[0].metadata.items()}, evaluation.passed


def dropped(conn: Conn) -> list[datetime]:
    return [hour for (hour,) in conn.execute("SELECT hour FROM queue.hours WHERE dropped_at IS NOT NULL ORDER BY 1")]


def test_what_is_past_retention_is_dropped(defs: dg.Definitions, instance: dg.DagsterInstance, conn: Conn) -> None:
    hours = past_hours(4)
    for hour, ago in zip(hours, (75, 73, 71, 1), strict=True):
        open_hour(conn, hour)
        sealed_ago(conn, hour, timedelta(hours=ago))

    metadata, passed = run(defs, instance)

    assert dropped(conn) == hours[:2]
    assert (metadata["hours"], metadata["dropped"], metadata["refused_hours"]) == (2, 2, 0)
    assert passed


def test_an_hour_with_work_left_stays_and_is_overdue_after_a_day(
    defs: dg.Definitions, instance: dg.DagsterInstance, conn: Conn, tenants: list[TenantId]
) -> None:
    hour = past_hours(1)[0]
    plant(conn, tenants[0], hour)
    sealed_ago(conn, hour, timedelta(hours=73))

    metadata, passed = run(defs, instance)
    assert (metadata["refused_hours"], metadata["overdue_hours"]) == (1, 0)
    assert "still has 1 pieces of work" in metadata["refused"]
    assert passed

    sealed_ago(conn, hour, timedelta(hours=97))
    metadata, passed = run(defs, instance)
    assert metadata["overdue_hours"] == 1
    assert not passed
    assert dropped(conn) == []


def test_hours_are_archived_before_they_are_dropped(
    defs: dg.Definitions, instance: dg.DagsterInstance, conn: Conn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "archive"
    archive.write_text("in the way of a directory")
    monkeypatch.setenv("PIPELINE_ARCHIVE_URL", str(archive))
    hours = past_hours(2)
    for hour in hours:
        open_hour(conn, hour)
        sealed_ago(conn, hour, timedelta(hours=73))

    metadata, _ = run(defs, instance)
    assert dropped(conn) == []
    assert metadata["refused"].count("is not archived") == 2

    archive.unlink()
    run(defs, instance)
    assert dropped(conn) == hours
    assert len(list(archive.rglob("*.parquet"))) == 2


def test_with_nothing_kept(defs: dg.Definitions, instance: dg.DagsterInstance, conn: Conn) -> None:
    metadata, passed = run(defs, instance)
    assert (metadata["hours"], metadata["oldest"]) == (0, "none")
    assert passed
