"""Dead letters in Dagster: seen by cause, tried again by a job."""

import uuid
from typing import Any

import dagster as dg
import psycopg

from pipeline_platform.db import queries
from pipeline_platform.event import AcceptedEvent, EventType, Lane, TenantId
from pipeline_platform.queue.batches import accept_params
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.migration import deliver_all


def _redrive(defs: dg.Definitions, instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    run_config = {"ops": {"redrive_dead_letters": {"config": config}}}
    job = defs.resolve_job_def("redrive_job")
    return job.execute_in_process(instance=instance, run_config=run_config, raise_on_error=False)


def test_they_are_shown_by_cause_and_redriven(
    conn: psycopg.Connection[Any], settings: Settings, defs: dg.Definitions, instance: dg.DagsterInstance,
    tenants: list[TenantId],
) -> None:  # fmt: skip
    conn.execute("SELECT queue.open_hour(date_trunc('hour', now(), 'UTC'))")
    events = [AcceptedEvent(tenants[n % 2], uuid.uuid4(), EventType.TRACK, None, b"{") for n in range(5)]
    conn.execute(queries("queue")["accept"], accept_params(Lane.LIVE, events, []))
    deliver_all(settings)
    made = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey("dead_letters")]
    )
    (materialization,) = made.asset_materializations_for_node("dead_letters")
    assert materialization.metadata["events"].value == 5 and materialization.metadata["tenants"].value == 2

    waiting = "SELECT count(*) FROM queue.dead_letters WHERE reason = 'mended'"
    assert not _redrive(defs, instance, reason=" ").success
    mistyped = _redrive(defs, instance, reason="mended", tenants=["acmee"], dry_run=False)
    assert "no tenant acmee. Did you mean acme?" in str(mistyped.failure_data_for_node("redrive_dead_letters"))
    assert _redrive(defs, instance, reason="mended", tenants=["acme"]).success
    assert conn.execute(waiting).fetchone() == (0,)
    assert _redrive(defs, instance, reason="mended", tenants=["acme"], dry_run=False).success
    assert conn.execute(waiting).fetchone() == (3,)
    assert _redrive(defs, instance, reason="mended", tenants=["acme", "globex"], dry_run=False).success
    assert conn.execute(waiting).fetchone() == (5,)
