"""A planted bug is found, corrected and undone from Dagster, with the workers' own processes doing the work."""

import dataclasses
from datetime import timedelta
from typing import Any

import dagster as dg
import psycopg
import pytest

from pipeline_platform.account.audit import audit
from pipeline_platform.defs.hours import key_of
from pipeline_platform.event.types import QueuedEvent, TenantId
from pipeline_platform.replay import steps
from pipeline_platform.replay.plan import Scope, make_plan
from pipeline_platform.settings import Settings
from pipeline_platform.worker.transform import Row, transform
from pipeline_platform_tests.support.materializations import materialized, metadata
from pipeline_platform_tests.support.planting import past_hours, plant
from pipeline_platform_tests.support.platform import Platform as Processes
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]
_CONTENT = """
SELECT md5(string_agg((to_jsonb(e) - ARRAY['delivered_at', 'replay_id'])::text, ',' ORDER BY tenant_id, event_id))
FROM analytics.events AS e
"""
_EXACT = "SELECT md5(string_agg(e::text, ',' ORDER BY tenant_id, event_id)) FROM analytics.events AS e"


def _run(defs: dg.Definitions, instance: dg.DagsterInstance, keys: list[str], **config: Any) -> bool:
    tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    run_config = {"ops": {"replay_hours": {"config": config}}} if config else {}
    job = defs.resolve_job_def("replay_job")
    return job.execute_in_process(instance=instance, tags=tags, run_config=run_config, raise_on_error=False).success


def _run_op(defs: dg.Definitions, instance: dg.DagsterInstance, op: str, **config: Any) -> dg.ExecuteInProcessResult:
    run_config = {"ops": {op: {"config": config}}}
    job = defs.resolve_job_def(f"{op}_job")
    return job.execute_in_process(instance=instance, run_config=run_config, raise_on_error=False)


def test_a_bug_of_three_hours_is_found_corrected_and_undone(
    conn: Conn, settings: Settings, defs: dg.Definitions, instance: dg.DagsterInstance, tenants: list[TenantId],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def bug(event: QueuedEvent) -> Row:
        row = transform(event)
        is_hit = event.tenant_id == tenants[0] and hours[1] <= event.received_at < hours[4]
        return dataclasses.replace(row, name="???") if is_hit else row

    hours = past_hours(6)
    keys = [key_of(hour) for hour in hours]
    for hour in hours:
        for tenant in tenants:
            plant(conn, tenant, hour, 20, name=f"t{tenant}")
    drain(settings)
    good = conn.execute(_CONTENT).fetchone()
    conn.execute("TRUNCATE analytics.events, analytics.keys, account.counters, account.deltas")
    conn.execute("INSERT INTO account.deltas (tenant_id, hour, lane, received, accepted, in_flight)"
                 " SELECT tenant_id, date_trunc('hour', received_at, 'UTC'), lane, count(*), count(*), count(*)"
                 " FROM queue.events GROUP BY 1, 2, 3")  # fmt: skip
    conn.execute("INSERT INTO queue.work (lane, batch_id, received_at, end_event)"
                 " SELECT lane, batch_id, received_at, events FROM queue.batches")  # fmt: skip
    drain(settings, bug)
    monkeypatch.setenv("PIPELINE_HOUR_WAIT_S", "1")
    bad = conn.execute(_EXACT).fetchone()
    assert conn.execute(_CONTENT).fetchone() != good

    with Processes(settings) as processes:
        processes.start_workers()
        assert _run(defs, instance, keys[1:4], reason="names were mangled", tenants=["acme"])
        assert len(materialized(instance, "replay_diffs")) == 3 and materialized(instance, "replayed_hours") == []
        diff = metadata(instance, "replay_diffs", hours[2])
        assert (diff["changed"], diff["unchanged"]) == (20, 0)
        assert "| `name` | 60 |" in diff["summary"]
        assert diff["result"] == (
            f"Replay {diff['replay_id']}: 60 rows would change. Nothing has changed yet. Of this hour: 0 added, "
            "20 changed, 0 removed, 0 unchanged. commit_replay_job commits it."
        )
        assert f"replay_id: {diff['replay_id']}" in diff["summary"]
        assert conn.execute(_EXACT).fetchone() == bad

        replay_id = diff["replay_id"]
        assert _run_op(defs, instance, "commit_replay", replay_id=replay_id).success
        committed = metadata(instance, "replayed_hours", hours[2])
        assert (committed["replay_id"], committed["state"]) == (replay_id, "committed")
        assert committed["result"].startswith(f"Replay {replay_id}: 60 rows were changed in all, 20 of this hour.")
        # Production has the replayed values now, so there is nothing to compare them with.
        assert "samples" not in committed and "sample" not in committed["summary"]
        assert conn.execute(_CONTENT).fetchone() == good
        assert not audit(conn).differences

        assert not _run_op(defs, instance, "undo_replay", replay_id=replay_id, reason="").success
        assert _run_op(defs, instance, "undo_replay", replay_id=replay_id, reason="a test").success
        assert conn.execute(_CONTENT).fetchone() == good
        assert _run_op(defs, instance, "undo_replay", replay_id=replay_id, reason="a test", dry_run=False).success
        assert conn.execute(_EXACT).fetchone() == bad
        undone = metadata(instance, "replayed_hours", hours[2])
        assert undone["state"] == "undone" and undone["result"].startswith(f"Undone: of replay {replay_id}, 60 rows")

        # Once more, without a reason: it is kept from where it was launched.
        assert _run(defs, instance, keys[1:4])
        again = metadata(instance, "replay_diffs", hours[3])["replay_id"]
        reason = conn.execute("SELECT reason FROM replay.replays WHERE replay_id = %s", (again,)).fetchone()
        assert reason and reason[0].startswith("launched in Dagster from replay_job, run ")
        assert again > replay_id
        assert _run_op(defs, instance, "commit_replay", replay_id=again).success
        assert metadata(instance, "replayed_hours", hours[3])["replay_id"] == again
        assert conn.execute(_CONTENT).fetchone() == good
        refused = _run_op(defs, instance, "commit_replay", replay_id=again)
        assert f"replay {again} is committed" in str(refused.failure_data_for_node("commit_replay"))
    assert not audit(conn).differences
    assert diff["samples"][0].data | {"event_id": ""} == {
        "what": "changed", "tenant": "acme", "event_id": "", "field": "name", "now": '"???"', "replayed": '"Clicked"',
    }  # fmt: skip


def test_an_unfinished_diff_whose_hours_are_gone_is_not_gone_on_with(
    conn: Conn, settings: Settings, defs: dg.Definitions, instance: dg.DagsterInstance, tenants: list[TenantId]
) -> None:
    [hour] = past_hours(1)
    plant(conn, tenants[0], hour, 20)
    drain(settings)
    before = conn.execute(_EXACT).fetchone()
    replay_id = make_plan(conn, Scope(hour, hour + timedelta(hours=1)), "a test").replay_id
    steps.start_diff(conn, replay_id)
    steps.set_paused(conn, replay_id, is_paused=True)
    conn.execute("TRUNCATE queue.batches")
    conn.execute("UPDATE queue.hours SET dropped_at = now() WHERE hour = %s", (hour,))
    tags = {"dagster/asset_partition_range_start": key_of(hour), "dagster/asset_partition_range_end": key_of(hour)}
    ran = defs.resolve_job_def("replay_job").execute_in_process(
        instance=instance, tags=tags, raise_on_error=False,
        run_config={"ops": {"replay_hours": {"config": {"reason": "a test"}}}},
    )  # fmt: skip
    said = str(ran.failure_data_for_node("replay_hours"))
    assert "(0 of 20 events)" in said and f"replay cancel {replay_id}" in said
    assert conn.execute(_EXACT).fetchone() == before
