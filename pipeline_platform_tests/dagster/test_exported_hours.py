"""Exported hours in Dagster: recorded by partition, proven, red by name, scheduled, and off without an address."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from pipeline_platform.defs import warehouse
from pipeline_platform.defs.hours import HOUR, key_of
from pipeline_platform.defs.policies import range_tags
from pipeline_platform.defs.resources import Platform
from pipeline_platform.defs.warehouse.exported import EXPORTED, hourly_exports
from pipeline_platform.event.types import TenantId
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.materializations import materialized, metadata
from pipeline_platform_tests.support.planting import plant
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]


@pytest.fixture
def exporting(
    settings: Settings, platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dg.Definitions:
    """The definitions of a platform that exports."""
    place = str(tmp_path / "warehouse")
    monkeypatch.setenv("PIPELINE_WAREHOUSE_URL", place)
    built = warehouse.build(settings.model_copy(update={"warehouse_url": place}))
    shared = dg.Definitions(resources={"platform": platform}, executor=dg.in_process_executor)
    return dg.Definitions.merge(shared, built)


@pytest.fixture
def hours(conn: Conn, settings: Settings, tenants: list[TenantId]) -> list[datetime]:
    """Three past hours, the second without events."""
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
    found = [noon + HOUR * place for place in range(3)]
    for hour in (found[0], found[2]):
        plant(conn, tenants[0], hour, 3)
        plant(conn, tenants[1], hour, 2, name="g")
    drain(settings)
    for hour in (found[0], found[2]):
        assert conn.execute("SELECT queue.seal_hour(%s)", (hour,)).fetchone() == (True,)
    return found


def _run(defs: dg.Definitions, instance: dg.DagsterInstance, hours: list[datetime]) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def("exports_job").execute_in_process(
        instance=instance, tags=range_tags(hours), raise_on_error=False
    )


def _verdicts(instance: dg.DagsterInstance) -> Mapping[str | None, tuple[bool, str]]:
    """The newest verdict of each hour, and that of the whole run."""
    key = dg.AssetCheckKey(EXPORTED, "same_as_delivered")
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
    return {
        record.partition: (record.evaluation.passed, record.evaluation.description or "")
        for record in reversed(history)
        if record.evaluation
    }


def _due(platform: Platform, instance: dg.DagsterInstance) -> list[Mapping[str, str]] | str:
    with dg.build_schedule_context(
        instance=instance, scheduled_execution_time=datetime.now(UTC), resources={"platform": platform}
    ) as context:
        found: Any = hourly_exports(context)
    if isinstance(found, dg.SkipReason):
        return found.skip_message or ""
    return [request.tags for request in found]


def test_hours_are_exported_proven_and_scheduled_again_when_they_change(
    conn: Conn, exporting: dg.Definitions, instance: dg.DagsterInstance, platform: Platform, settings: Settings,
    hours: list[datetime], tenants: list[TenantId],
) -> None:  # fmt: skip
    assert _due(platform, instance) == [range_tags(hours[:1]), range_tags(hours[2:])]
    assert _run(exporting, instance, hours).success
    assert materialized(instance, "exported_hours") == [key_of(hour) for hour in hours]
    assert metadata(instance, "exported_hours", hours[0])["result"] == "Version 1: 5 events of 2 tenants, exported."
    assert metadata(instance, "exported_hours", hours[1])["result"].startswith("Nothing was received")
    assert {passed for passed, _ in _verdicts(instance).values()} == {True}
    assert "no hour was delivered or changed" in _due(platform, instance)

    conn.execute("SELECT queue.reopen_hour(%s)", (hours[0],))
    plant(conn, tenants[0], hours[0], 2, name="late")
    drain(settings)
    conn.execute("SELECT queue.seal_hour(%s)", (hours[0],))
    assert _due(platform, instance) == [range_tags(hours[:1])]
    assert _run(exporting, instance, hours).success
    assert metadata(instance, "exported_hours", hours[0])["result"] == "Version 2: 7 events of 2 tenants, exported."
    assert "unchanged since its export" in metadata(instance, "exported_hours", hours[2])["result"]


def test_an_hour_whose_numbers_differ_is_red_by_name_and_the_others_are_exported(
    conn: Conn, exporting: dg.Definitions, instance: dg.DagsterInstance, hours: list[datetime], tenants: list[TenantId]
) -> None:
    [gone] = conn.execute(
        "DELETE FROM analytics.events WHERE ctid = (SELECT min(ctid) FROM analytics.events WHERE received_at < %s "
        "AND tenant_id = %s) AND received_at < %s RETURNING to_jsonb(events)",
        (hours[1], tenants[0], hours[1]),
    ).fetchall()
    done = _run(exporting, instance, hours)
    assert not done.success
    assert materialized(instance, "exported_hours") == [key_of(hour) for hour in hours[1:]]
    found = _verdicts(instance)
    assert not found[key_of(hours[0])][0]
    assert "acme: 2 in the file, 2 in analytics.events, 3 delivered" in found[key_of(hours[0])][1]
    assert found[None] == (False, f"Wrong in 1 hours, until a run finds them right: {key_of(hours[0])}")
    assert found[key_of(hours[2])][0]
    conn.execute(
        "INSERT INTO analytics.events SELECT * FROM jsonb_populate_record(NULL::analytics.events, %s)",
        (psycopg.types.json.Jsonb(gone[0]),),
    )
    assert _run(exporting, instance, hours[:1]).success
    assert {passed for passed, _ in _verdicts(instance).values()} == {True}


def test_without_an_address_it_cannot_be_launched_and_says_how_to_turn_it_on(settings: Settings) -> None:
    off = warehouse.build(settings.model_copy(update={"warehouse_url": ""}))
    node = off.resolve_asset_graph().get(EXPORTED)
    assert not node.is_executable
    assert "PIPELINE_WAREHOUSE_URL" in (node.description or "")
