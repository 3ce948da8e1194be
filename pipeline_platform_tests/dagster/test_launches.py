"""Whatever the UI launches ends in what it says: each selected asset has each chosen hour afterwards."""

from datetime import datetime
from itertools import combinations
from typing import Any

import dagster as dg
import psycopg
import pytest

from pipeline_platform.defs.hours import key_of
from pipeline_platform.defs.policies import range_tags
from pipeline_platform.event.types import TenantId
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.materializations import materialized
from pipeline_platform_tests.support.planting import past_hours, plant
from pipeline_platform_tests.support.platform import Platform as Processes

Conn = psycopg.Connection[Any]


def _launchable(defs: dg.Definitions) -> dict[str, list[dg.AssetKey]]:
    """Assets over hours that a page can launch, by group, in their order."""
    graph = defs.resolve_asset_graph()
    found: dict[str, list[dg.AssetKey]] = {}
    for key in graph.toposorted_asset_keys:
        node = graph.get(key)
        if node.is_materializable and str(node.partitions_def).startswith("Hourly"):
            found.setdefault(node.group_name, []).append(key)
    return found


def _launch(
    defs: dg.Definitions, instance: dg.DagsterInstance, keys: list[dg.AssetKey], hours: list[datetime]
) -> dg.ExecuteInProcessResult:
    """One run of these assets over a range, without any config, as asset, group and lineage pages launch it."""
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, asset_selection=keys, tags=range_tags(hours), raise_on_error=False)


def test_each_group_launched_whole_without_a_config_has_every_hour_afterwards(
    conn: Conn, settings: Settings, defs: dg.Definitions, instance: dg.DagsterInstance, tenants: list[TenantId]
) -> None:
    hours = past_hours(3)
    plant(conn, tenants[0], hours[0])
    with Processes(settings) as processes:
        processes.start_workers()
        for group, keys in _launchable(defs).items():
            result = _launch(defs, instance, keys, hours)
            assert result.success, (group, [event for event in result.all_events if event.is_step_failure])
            assert [event.step_key for event in result.all_events if event.is_step_skipped] == []
            for key in keys:
                assert materialized(instance, key.to_user_string()) == [key_of(hour) for hour in hours], (group, key)


def test_neighbours_of_the_graph_launched_together_skip_nothing(
    conn: Conn, settings: Settings, defs: dg.Definitions, instance: dg.DagsterInstance, tenants: list[TenantId]
) -> None:
    """Also across groups, where one step waits for another's output."""
    hour = past_hours(1)
    plant(conn, tenants[0], hour[0])
    every = [key for keys in _launchable(defs).values() for key in keys]
    graph = defs.resolve_asset_graph()
    pairs = [pair for pair in combinations(every, 2) if pair[0] in graph.get(pair[1]).parent_keys]
    assert len(pairs) >= 4
    with Processes(settings) as processes:
        processes.start_workers()
        for pair in pairs:
            before = {key: len(materialized(instance, key.to_user_string())) for key in pair}
            assert _launch(defs, instance, list(pair), hour).success, pair
            for key in pair:
                assert len(materialized(instance, key.to_user_string())) == before[key] + 1, (pair, key)


def test_a_group_of_a_thousand_quiet_hours_writes_few_events(
    conn: Conn, defs: dg.Definitions, instance: dg.DagsterInstance, storage: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Per hour and asset one planned event and one record, which is what Dagster needs to call the hour done."""
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "500")
    hours = past_hours(200)
    events = _launchable(defs)["events"]
    assert _launch(defs, instance, events, hours).success
    found = dict(storage.execute("SELECT dagster_event_type, count(*) FROM event_logs GROUP BY 1").fetchall())
    assert found["ASSET_MATERIALIZATION"] == len(events) * len(hours)
    assert found["ASSET_CHECK_EVALUATION"] == 1
    others = {name: count for name, count in found.items() if name and not name.startswith("ASSET_MATERIALIZATION")}
    assert sum(others.values()) < 50, others


def test_the_list_of_runs_shows_the_hours(defs: dg.Definitions, instance: dg.DagsterInstance, conn: Conn) -> None:
    hours = past_hours(3)
    result = _launch(defs, instance, [dg.AssetKey("rollups")], hours)
    assert result.success
    run = instance.get_run_by_id(result.run_id)
    assert run and run.tags["hours"] == f"[{key_of(hours[0])}...{key_of(hours[-1])}]"


def test_each_record_says_all_in_one_line(
    conn: Conn, defs: dg.Definitions, instance: dg.DagsterInstance, tenants: list[TenantId]
) -> None:
    hours = past_hours(2)
    plant(conn, tenants[0], hours[0])
    for key in ["accepted_events", "enriched_events", "delivered_events", "rollups", "reconciled_hours"]:
        assert _launch(defs, instance, [dg.AssetKey(key)], hours).success
        for record in instance.fetch_materializations(dg.AssetKey(key), limit=10).records:
            said = record.asset_materialization
            assert said and said.description and "\n" not in said.description
            assert said.metadata["result"].value == said.description


def test_no_asset_page_asks_for_a_config(defs: dg.Definitions) -> None:
    """With a required field, asset and group pages offer a launchpad with one partition in place of the range."""
    job = defs.resolve_implicit_global_asset_job_def()
    assert dg.validate_run_config(job, {})


@pytest.mark.parametrize("group", ["events", "customers", "migration", "replay"])
def test_no_hour_of_an_asset_depends_on_one_that_does_not_exist(defs: dg.Definitions, group: str) -> None:
    graph = defs.resolve_asset_graph()
    for key in _launchable(defs)[group]:
        here = graph.get(key).partitions_def
        assert here
        for parent in graph.get(key).parent_keys:
            there = graph.get(parent).partitions_def
            if there is not None:
                mapping = graph.get_partition_mapping(key, parent)
                every = here.subset_with_all_partitions()
                found = mapping.get_upstream_mapped_partitions_result_for_partitions(every, here, there)
                assert list(found.required_but_nonexistent_subset.get_partition_keys()) == [], (key, parent)
