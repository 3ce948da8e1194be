"""Hours through the assets, on a real instance: one run, hour by hour, kept as far as it came."""

from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import psycopg
import pytest

from pipeline_platform.db import connect
from pipeline_platform.defs.hours import key_of
from pipeline_platform.event.types import TenantId
from pipeline_platform_tests.support.materializations import materialized, metadata
from pipeline_platform_tests.support.planting import open_hour, past_hours, plant

Conn = psycopg.Connection[Any]

STAGES = ("accepted_events", "enriched_events", "delivered_events")
CHECK = dg.AssetCheckKey(dg.AssetKey("delivered_events"), "account_holds")


def process(defs: dg.Definitions, instance: dg.DagsterInstance, hours: list[datetime]) -> dg.ExecuteInProcessResult:
    """One run over a range, as a backfill launches it."""
    tags = {
        "dagster/asset_partition_range_start": key_of(hours[0]),
        "dagster/asset_partition_range_end": key_of(hours[-1]),
    }
    job = defs.resolve_job_def("process_hours_job")
    return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def verdicts(instance: dg.DagsterInstance) -> dict[str | None, bool]:
    """Whether the check passed, by partition that was judged; None: the run as a whole."""
    history = instance.event_log_storage.get_asset_check_execution_history(CHECK, limit=1000)
    return {
        record.partition: record.evaluation.passed
        for record in reversed(history)
        if isinstance(record.evaluation, dg.AssetCheckEvaluation)
    }


def delivered(conn: Conn) -> int:
    row = conn.execute("SELECT count(*) FROM analytics.events").fetchone()
    assert row
    return row[0]


def test_a_range_is_one_run_that_records_each_hour_with_its_check(
    defs: dg.Definitions, instance: dg.DagsterInstance, conn: Conn, tenants: list[TenantId]
) -> None:
    hours = past_hours(5)
    for index, hour in enumerate(hours):
        plant(conn, tenants[0], hour, 2 + index, rejected=1)
        plant(conn, tenants[1], hour, 1)

    assert process(defs, instance, hours).success

    for asset in STAGES:
        assert materialized(instance, asset) == [key_of(hour) for hour in hours]
    assert verdicts(instance) == {key_of(hour): True for hour in hours} | {None: True}
    assert delivered(conn) == 2 + 3 + 4 + 5 + 6 + 5

    accepted = metadata(instance, "accepted_events", hours[1])
    assert (accepted["received"], accepted["accepted"], accepted["rejected"]) == (5, 4, 1)
    assert (accepted["batches"], accepted["tenants"], accepted["seals"]) == (2, 2, 1)
    assert accepted["bytes"] > 4 * 50
    assert [row.data["tenant"] for row in accepted["by_tenant"]] == ["acme", "globex"]
    enriched = metadata(instance, "enriched_events", hours[1])
    assert (enriched["claimed_by_this_run"], enriched["enriched"], enriched["in_flight"]) == (4, 4, 0)
    done = metadata(instance, "delivered_events", hours[1])
    assert (done["delivered"], done["duplicate"], done["dead_lettered"], done["in_flight"]) == (4, 0, 0, 0)
    assert 0 < done["p50_ms"] <= done["p95_ms"] <= done["p99_ms"]


def test_hours_run_again_deliver_nothing_twice(
    defs: dg.Definitions, instance: dg.DagsterInstance, conn: Conn, tenants: list[TenantId]
) -> None:
    hours = past_hours(2)
    for hour in hours:
        plant(conn, tenants[0], hour)
    assert process(defs, instance, hours).success
    assert process(defs, instance, hours).success

    assert delivered(conn) == 6
    assert metadata(instance, "enriched_events", hours[0])["claimed_by_this_run"] == 0
    assert metadata(instance, "accepted_events", hours[0])["seals"] == 1


def test_an_hour_in_which_nothing_was_received_has_an_account_of_zeros(
    defs: dg.Definitions, instance: dg.DagsterInstance, conn: Conn
) -> None:
    made_ahead, unknown = past_hours(2)
    open_hour(conn, made_ahead)

    assert process(defs, instance, [made_ahead, unknown]).success

    for hour in (made_ahead, unknown):
        assert metadata(instance, "accepted_events", hour)["received"] == 0
        assert metadata(instance, "delivered_events", hour)["delivered"] == 0
    # An hour that nobody used has no verdict of its own: a thousand of them are launched at once.
    assert verdicts(instance) == {key_of(made_ahead): True, None: True}


@pytest.mark.parametrize(
    ("columns", "unbalanced", "differences"),
    [
        pytest.param("received", 1, 1, id="the first line"),
        pytest.param("delivered", 1, 1, id="the second line"),
        pytest.param("received, accepted, claimed, enriched, delivered", 0, 5, id="both lines hold, the rows differ"),
    ],
)
def test_an_imbalance_fails_the_check_of_exactly_its_hour(
    columns: str,
    unbalanced: int,
    differences: int,
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    conn: Conn,
    tenants: list[TenantId],
) -> None:
    hours = past_hours(3)
    for hour in hours:
        plant(conn, tenants[0], hour)
    conn.execute(
        f"INSERT INTO account.deltas (tenant_id, hour, lane, {columns}) "  # pyright: ignore
        f"VALUES (%s, %s, 'live'{', 1' * len(columns.split(','))})",
        (tenants[0], hours[1]),
    )

    result = process(defs, instance, hours)

    assert not result.success
    assert key_of(hours[1]) in failure_of(result)
    assert verdicts(instance) == {key_of(hours[0]): True, key_of(hours[1]): False, key_of(hours[2]): True, None: False}
    assert materialized(instance, "delivered_events") == [key_of(hour) for hour in hours]
    (failed,) = [each for each in result.get_asset_check_evaluations() if not each.passed and each.partition]
    assert failed.metadata["unbalanced"].value == unbalanced
    assert failed.metadata["differences"].value == differences


def test_a_red_hour_stays_named_until_a_run_finds_it_right(
    defs: dg.Definitions, instance: dg.DagsterInstance, conn: Conn, tenants: list[TenantId]
) -> None:
    def last() -> dg.AssetCheckEvaluation:
        found = instance.event_log_storage.get_asset_check_execution_history(CHECK, limit=1)[0].evaluation
        assert found
        return found

    hours = past_hours(3)
    for hour in hours:
        plant(conn, tenants[0], hour)
    assert process(defs, instance, hours).success
    row = "DELETE FROM analytics.events WHERE event_id = (SELECT event_id FROM analytics.events" \
          " WHERE received_at >= %s AND received_at < %s LIMIT 1)"  # fmt: skip
    conn.execute("CREATE TABLE public.kept AS SELECT * FROM analytics.events")
    conn.execute(row, (hours[0], hours[1]))
    assert not process(defs, instance, hours[:1]).success

    # The next run is of another hour, in which all is right. It succeeds, and the asset stays red.
    assert process(defs, instance, hours[1:]).success
    assert not last().passed
    assert last().metadata["wrong_hours"].value == [key_of(hours[0])]
    assert key_of(hours[0]) in (last().description or "")
    assert verdicts(instance)[key_of(hours[0])] is False

    conn.execute("INSERT INTO analytics.events SELECT * FROM public.kept ON CONFLICT DO NOTHING")
    assert process(defs, instance, hours[:1]).success
    assert last().passed and last().metadata["wrong_hours"].value == []


def test_imported_events_have_no_latency(
    defs: dg.Definitions, instance: dg.DagsterInstance, conn: Conn, tenants: list[TenantId]
) -> None:
    hour = past_hours(1)[0]
    plant(conn, tenants[0], hour)
    conn.execute(
        "INSERT INTO control.imports (import_id, source, shift, started_at) VALUES (repeat('f', 64), 's', '0', now())"
    )
    conn.execute("INSERT INTO control.import_chunks (import_id, hour, chunk, batch_id, accepted, rejected)"
                 " SELECT repeat('f', 64), %s, 0, batch_id, 3, 0 FROM queue.batches", (hour,))  # fmt: skip
    assert process(defs, instance, [hour]).success
    done = metadata(instance, "delivered_events", hour)
    assert done["delivered"] == 3 and "p95_ms" not in done


def test_an_hour_whose_batches_were_dropped_is_judged_by_its_counters(
    defs: dg.Definitions, instance: dg.DagsterInstance, conn: Conn, tenants: list[TenantId]
) -> None:
    hour = past_hours(1)[0]
    plant(conn, tenants[0], hour)
    assert process(defs, instance, [hour]).success
    conn.execute("SELECT queue.drop_hour(%s, '0')", (hour,))

    result = process(defs, instance, [hour])

    assert result.success
    assert metadata(instance, "accepted_events", hour)["received"] == 3
    assert "batches" not in metadata(instance, "accepted_events", hour)
    assert "batches_dropped_at" in metadata(instance, "accepted_events", hour)
    evaluation = result.get_asset_check_evaluations()[0]
    assert (evaluation.metadata["received"].value, evaluation.metadata["recounted"].value) == (3, False)


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    failures = [event for event in result.all_events if event.is_step_failure]
    assert len(failures) == 1
    data = failures[0].step_failure_data
    assert data.user_failure_data, data.error
    return data.user_failure_data.description or ""


def test_a_failed_run_keeps_the_hours_before_it_and_the_next_one_resumes(
    defs: dg.Definitions, instance: dg.DagsterInstance, conn: Conn, database_url: str, tenants: list[TenantId]
) -> None:
    hours = past_hours(4)
    for hour in hours:
        plant(conn, tenants[0], hour)
    with connect(database_url, "import") as importer, importer.transaction():
        importer.execute("SELECT pg_advisory_xact_lock_shared(queue.hour_lock(%s))", (hours[2],))
        result = process(defs, instance, hours)

    assert not result.success
    assert "is still being written" in failure_of(result)
    for asset in STAGES:
        assert materialized(instance, asset) == [key_of(hour) for hour in hours[:2]]
    assert delivered(conn) == 6

    assert process(defs, instance, hours[2:]).success
    for asset in STAGES:
        assert materialized(instance, asset) == [key_of(hour) for hour in hours]
    assert delivered(conn) == 12


def test_the_hour_under_way_is_refused_with_the_time_at_which_it_can_be_sealed(
    defs: dg.Definitions, instance: dg.DagsterInstance, conn: Conn, tenants: list[TenantId]
) -> None:
    hour = past_hours(1)[0] + timedelta(hours=1)
    plant(conn, tenants[0], hour)
    with dg.partition_loading_context(effective_dt=hour + timedelta(hours=1, minutes=1)):
        result = process(defs, instance, [hour])

    assert not result.success
    assert "is not over" in failure_of(result)
    assert materialized(instance, "accepted_events") == []


def test_work_that_a_live_worker_holds_is_waited_for(
    defs: dg.Definitions, instance: dg.DagsterInstance, conn: Conn, database_url: str, tenants: list[TenantId]
) -> None:
    hour = past_hours(1)[0]
    plant(conn, tenants[0], hour)
    with connect(database_url, "worker") as worker, worker.transaction():
        worker.execute("SELECT FROM queue.work FOR UPDATE")
        result = process(defs, instance, [hour])

    assert not result.success
    assert "held by live workers" in failure_of(result)
    assert materialized(instance, "accepted_events") == [key_of(hour)]
    assert materialized(instance, "enriched_events") == []


def test_a_lost_connection_is_tried_again_and_no_hour_is_recorded_twice(
    defs: dg.Definitions, instance: dg.DagsterInstance, conn: Conn, tenants: list[TenantId]
) -> None:
    hours = past_hours(3)
    for hour in hours:
        plant(conn, tenants[0], hour)
    # Ends the backend that looks at the second hour's account, once.
    conn.execute("CREATE TABLE public.ended AS SELECT false AS once")
    conn.execute(
        """
        CREATE FUNCTION public.end_once() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.hour = TG_ARGV[0]::timestamptz AND nextval('public.tries') = 1 THEN
                PERFORM pg_terminate_backend(pg_backend_pid());
            END IF;
            RETURN NEW;
        END $$
        """
    )
    conn.execute("CREATE SEQUENCE public.tries")
    conn.execute(
        f"CREATE TRIGGER end_once BEFORE UPDATE ON queue.hours FOR EACH ROW "  # pyright: ignore
        f"EXECUTE FUNCTION public.end_once('{hours[1].isoformat()}')"
    )

    result = process(defs, instance, hours)

    assert result.success
    assert [event for event in result.all_events if event.is_step_restarted]
    for asset in STAGES:
        assert materialized(instance, asset) == [key_of(hour) for hour in hours]
    assert delivered(conn) == 9


def test_one_asset_alone(
    defs: dg.Definitions, instance: dg.DagsterInstance, conn: Conn, tenants: list[TenantId]
) -> None:
    hour = past_hours(1)[0]
    plant(conn, tenants[0], hour)
    job = defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance, partition_key=key_of(hour), asset_selection=[dg.AssetKey("accepted_events")]
    )
    assert result.success
    assert [materialized(instance, asset) for asset in STAGES] == [[key_of(hour)], [], []]
    assert verdicts(instance) == {}
    assert delivered(conn) == 0


def test_the_check_alone_judges_every_sealed_hour_that_is_kept(
    defs: dg.Definitions, instance: dg.DagsterInstance, conn: Conn, tenants: list[TenantId]
) -> None:
    hours = past_hours(2)
    for hour in hours:
        plant(conn, tenants[0], hour)
        conn.execute("SELECT queue.seal_hour(%s)", (hour,))
    selection = dg.AssetSelection.checks(CHECK)
    alone = dg.Definitions.merge(defs, dg.Definitions(jobs=[dg.define_asset_job("check_alone", selection=selection)]))

    assert alone.resolve_job_def("check_alone").execute_in_process(instance=instance).success

    assert verdicts(instance) == {key_of(hour): True for hour in hours} | {None: True}
    assert materialized(instance, "delivered_events") == []
