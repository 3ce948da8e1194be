"""Roll-ups and the daily report in Dagster: recorded by partition, proved, and failing by name."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from pipeline_platform.analytics import rollups
from pipeline_platform.defs.customers.rollups import hourly_rollups
from pipeline_platform.defs.hours import HOUR, key_of
from pipeline_platform.defs.resources import Platform
from pipeline_platform.event.types import TenantId
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.materializations import materialized, metadata
from pipeline_platform_tests.support.planting import plant
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]
_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


@pytest.fixture
def hours(conn: Conn, settings: Settings, tenants: list[TenantId]) -> list[datetime]:
    """Two sealed hours of yesterday: three events of acme in each; five of globex in the second, and one rejected."""
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
    found = [noon, noon + HOUR]
    for hour in found:
        plant(conn, tenants[0], hour, 3)
    plant(conn, tenants[1], found[1], 5, rejected=1, name="g")
    drain(settings)
    for hour in found:
        assert conn.execute("SELECT queue.seal_hour(%s)", (hour,)).fetchone() == (True,)
    return found


def _run(defs: dg.Definitions, instance: dg.DagsterInstance, hours: list[datetime], **config: Any) -> None:
    found = defs.resolve_job_def("rollups_job").execute_in_process(
        instance=instance,
        tags={_RANGE_START: key_of(hours[0]), _RANGE_END: key_of(hours[-1])},
        run_config={"ops": {"roll_up_hours": {"config": config}}},
    )
    assert found.success


def _verdicts(instance: dg.DagsterInstance, asset: str, check: str) -> list[tuple[str | None, bool]]:
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
    return [(record.partition, record.evaluation.passed) for record in reversed(history) if record.evaluation]


def _due(platform: Platform, instance: dg.DagsterInstance) -> list[tuple[str, str]] | str:
    with dg.build_schedule_context(
        instance=instance, scheduled_execution_time=datetime.now(UTC), resources={"platform": platform}
    ) as context:
        found: Any = hourly_rollups(context)
    if isinstance(found, dg.SkipReason):
        return found.skip_message or ""
    return [(request.tags[_RANGE_START], request.tags[_RANGE_END]) for request in found]


def test_hours_are_rolled_up_proved_and_due_again_when_they_change(
    conn: Conn, defs: dg.Definitions, instance: dg.DagsterInstance, platform: Platform, settings: Settings,
    hours: list[datetime], tenants: list[TenantId],
) -> None:  # fmt: skip
    keys = [key_of(hour) for hour in hours]
    assert _due(platform, instance) == [(keys[0], keys[1])]
    _run(defs, instance, hours)
    assert materialized(instance, "rollups") == keys
    assert [metadata(instance, "rollups", hour)["events"] for hour in hours] == [3, 8]
    assert metadata(instance, "rollups", hours[1])["tenants"] == 2
    assert _verdicts(instance, "rollups", "same_totals") == [(keys[0], True), (keys[1], True), (None, True)]
    assert "no hour ended or changed" in _due(platform, instance)

    conn.execute("SELECT queue.reopen_hour(%s)", (hours[0],))
    plant(conn, tenants[0], hours[0], 2, name="late")
    drain(settings)
    conn.execute("SELECT queue.seal_hour(%s)", (hours[0],))
    rollups.refresh_all(conn)
    assert _due(platform, instance) == [(keys[0], keys[0])]
    _run(defs, instance, hours[:1])
    assert metadata(instance, "rollups", hours[0])["events"] == 5
    assert "no hour ended or changed" in _due(platform, instance)

    conn.execute("UPDATE analytics.rollup_hours SET checked_at = checked_at - interval '25 hours'")
    assert _due(platform, instance) == [(keys[0], keys[1])], "kept hours are looked at once a day"


def test_an_altered_cell_fails_the_check_by_name_until_it_is_counted_anew(
    conn: Conn, defs: dg.Definitions, instance: dg.DagsterInstance, hours: list[datetime]
) -> None:
    _run(defs, instance, hours)
    conn.execute("UPDATE analytics.rollups SET events = events - 1 WHERE tenant_id ="
                 " (SELECT tenant_id FROM control.tenants WHERE name = 'globex')")  # fmt: skip
    _run(defs, instance, hours)
    assert [passed for _, passed in _verdicts(instance, "rollups", "same_totals")[3:]] == [True, False, False]
    key = dg.AssetCheckKey(dg.AssetKey("rollups"), "same_totals")
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    said = {
        each.partition: each.evaluation.description or ""
        for each in reversed(history)
        if isinstance(each.evaluation, dg.AssetCheckEvaluation)
    }
    assert key_of(hours[1]) in said[None]
    assert said[key_of(hours[1])].startswith(f"{key_of(hours[1])}: ")
    assert (
        f"globex, {hours[1]:%Y-%m-%d %H}:00: the roll-ups say 4, an export 5 (track Clicked)" in said[key_of(hours[1])]
    )
    _run(defs, instance, hours)
    assert not _verdicts(instance, "rollups", "same_totals")[-1][1], "the check repaired it"
    _run(defs, instance, hours, recompute=True)
    assert _verdicts(instance, "rollups", "same_totals")[-1][1]


def _report(defs: dg.Definitions, instance: dg.DagsterInstance, day: str) -> tuple[dict[str, Any], bool]:
    found = defs.resolve_job_def("daily_report_job").execute_in_process(instance=instance, partition_key=day)
    assert found.success
    (one,) = found.asset_materializations_for_node("daily_report")
    return {name: value.value for name, value in one.metadata.items()}, found.get_asset_check_evaluations()[0].passed


def test_the_daily_report_counts_shows_and_names_what_is_lost(
    conn: Conn, defs: dg.Definitions, instance: dg.DagsterInstance, settings: Settings, hours: list[datetime],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("PIPELINE_HOME", str(settings.home))
    conn.execute("UPDATE control.tenants SET name = '<b>acme</b>' WHERE name = 'acme'")
    day = hours[1].date().isoformat()
    found, passed = _report(defs, instance, day)
    assert passed
    numbers = {name: found[name] for name in ("received", "delivered", "rejected", "lost", "tenants")}
    assert numbers == {"received": 12, "delivered": 11, "rejected": 1, "lost": 0, "tenants": 2}
    assert "1 rejected: `not_json`" in found["summary"]
    assert found["result"] == "12 received, 11 delivered, 0 lost."
    assert "page" not in found, "a link to a file, which browsers refuse"
    page = Path(found["file"])
    assert page == (settings.home / "reports" / f"{day}.html").resolve()
    text = page.read_text()
    assert text.count('class="plotly-graph-div"') == 1 and "&lt;b&gt;acme&lt;/b&gt;" in text and "<b>acme" not in text
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", text)

    conn.execute("DELETE FROM analytics.events WHERE message_id = %s", (f"g-{hours[1].isoformat()}-0",))
    found, passed = _report(defs, instance, day)
    assert (passed, found["lost"]) == (False, 1)
    assert "**globex lost 1**" in found["summary"]
    assert "globex" in page.read_text().split("<h2>Tenants</h2>")[1].split("&lt;b&gt;acme")[0], "the worst comes first"


def test_a_day_is_reported_when_it_is_over(defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    schedule = defs.resolve_schedule_def("daily_report_at_night")
    at = datetime(2027, 3, 2, 0, 40, tzinfo=UTC)
    with (
        dg.partition_loading_context(effective_dt=at),
        dg.build_schedule_context(instance=instance, scheduled_execution_time=at) as context,
    ):
        requests = schedule.evaluate_tick(context).run_requests
    assert requests and [request.partition_key for request in requests] == ["2027-03-01"]
    assert schedule.execution_timezone == "UTC"
