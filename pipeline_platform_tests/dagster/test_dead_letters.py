"""Dead letters in Dagster: seen by cause, tried again by a job."""

from typing import Any

import dagster as dg
import psycopg
import pytest

from pipeline_platform.defs.policies import retried_where_it_helps
from pipeline_platform.defs.resources import Platform
from pipeline_platform.event.types import TenantId
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.everything import tables_with
from pipeline_platform_tests.support.queue import accept, event
from pipeline_platform_tests.support.workers import drain


def _redrive(defs: dg.Definitions, instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    run_config = {"ops": {"redrive_dead_letters": {"config": config}}}
    job = defs.resolve_job_def("redrive_job")
    return job.execute_in_process(instance=instance, run_config=run_config, raise_on_error=False)


def test_they_are_shown_by_cause_and_redriven(
    conn: psycopg.Connection[Any], settings: Settings, defs: dg.Definitions, instance: dg.DagsterInstance,
    tenants: list[TenantId],
) -> None:  # fmt: skip
    conn.execute("SELECT queue.open_hour(date_trunc('hour', now(), 'UTC'))")
    accept(conn, *(event(tenants[n % 2], payload=b"{") for n in range(5)))
    drain(settings)
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


_ADDRESS = "planted-ann@example.org"


def test_dagster_keeps_nothing_that_an_error_quotes(
    conn: psycopg.Connection[Any], platform: Platform, defs: dg.Definitions, instance: dg.DagsterInstance,
    settings: Settings, tenants: list[TenantId], capfd: pytest.CaptureFixture[str], storage: psycopg.Connection[Any],
) -> None:  # fmt: skip
    conn.execute("SELECT queue.open_hour(date_trunc('hour', now(), 'UTC'))")
    accept(conn, event(tenants[0], payload=f'{{"userId":"{_ADDRESS}"'.encode()))
    drain(settings)
    conn.execute("UPDATE queue.dead_letters SET error = %s", (f'invalid input: "{_ADDRESS}"',))
    defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey("dead_letters")]
    )
    assert _redrive(defs, instance, reason="mended").success

    @dg.op
    def meets_bad_data(platform: Platform) -> None:
        with platform.connect() as own:
            own.execute("SELECT %s::text::integer", (_ADDRESS,))

    @dg.op
    def meets_bad_data_in_an_hour(platform: Platform) -> None:
        with platform.connect() as own, retried_where_it_helps("2026-01-01-00:00"):
            own.execute("SELECT %s::text::integer", (_ADDRESS,))

    @dg.job(resource_defs={"platform": platform}, executor_def=dg.in_process_executor)
    def fails() -> None:
        meets_bad_data()
        meets_bad_data_in_an_hour()

    failed = fails.execute_in_process(instance=instance, raise_on_error=False)
    assert "InvalidTextRepresentation" in str(failed.failure_data_for_node("meets_bad_data"))
    assert "22P02" in str(failed.failure_data_for_node("meets_bad_data_in_an_hour"))
    assert tables_with(storage, "meets_bad_data")
    assert tables_with(storage, _ADDRESS) == {}
    assert _ADDRESS not in "".join(capfd.readouterr())
    assert {table.split(".")[0] for table in tables_with(conn, _ADDRESS)} == {"queue"}
