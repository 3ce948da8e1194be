"""What goes with a pruned run and what stays, on a real instance."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster import DagsterRunStatus

from pipeline_platform.defs.hours import HOURS, key_of
from pipeline_platform.defs.operations.pruning import prune, prune_runs
from pipeline_platform_tests.support.planting import open_hour, past_hours

Conn = psycopg.Connection[Any]
_NOW = datetime.now(UTC)


@dg.asset(partitions_def=HOURS, check_specs=[dg.AssetCheckSpec("fine", asset="hourly")])
def hourly(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    print(context.partition_key)
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])


@dg.asset
def whole() -> None:
    pass


def _run(instance: dg.DagsterInstance, asset: Any, partition: str | None = None) -> str:
    result = dg.materialize([asset], instance=instance, partition_key=partition)
    assert result.success
    return result.run_id


def _age(storage: Conn, run_id: str, days: int) -> None:
    at = (_NOW - timedelta(days=days)).replace(tzinfo=None)
    storage.execute("UPDATE runs SET update_timestamp = %s WHERE run_id = %s", (at, run_id))


def _runs(storage: Conn) -> set[str]:
    return {run_id for (run_id,) in storage.execute("SELECT run_id FROM runs")}


def _prune(instance: dg.DagsterInstance, kept_since: datetime | None = None, **more: Any) -> tuple[int, int, bool]:
    older_than = _NOW - timedelta(days=30)
    done = prune(instance, older_than, kept_since or older_than, **({"runs_max": 100, "dry_run": False} | more))
    return done.deleted, done.kept, done.is_done


def test_old_finished_runs_go_with_their_events_and_logs(
    instance: dg.DagsterInstance, storage: Conn, tmp_path: Path
) -> None:
    old, new = (_run(instance, hourly, "2026-10-02-00:00") for _ in range(2))
    _age(storage, old, 31)
    assert (tmp_path / "storage" / old).is_dir()
    assert _prune(instance, dry_run=True) == (1, 0, True)
    assert _runs(storage) == {old, new}
    assert _prune(instance) == (1, 0, True)
    assert _runs(storage) == {new}
    assert storage.execute("SELECT DISTINCT run_id FROM event_logs").fetchall() == [(new,)]
    assert not (tmp_path / "storage" / old).exists()
    verdicts = storage.execute("SELECT count(*) FROM asset_check_executions WHERE run_id = %s", (old,)).fetchone()
    assert verdicts and verdicts[0] > 0, "verdicts of checks are kept apart from runs"
    assert _prune(instance) == (0, 0, True)


def test_the_newest_record_of_an_asset_or_a_kept_hour_stays(instance: dg.DagsterInstance, storage: Conn) -> None:
    kept, gone = "2026-10-03-00:00", "2026-10-02-00:00"
    kept_since = datetime(2026, 10, 3, tzinfo=UTC)
    first, second, of_gone = (_run(instance, hourly, key) for key in (kept, kept, gone))
    older, newest = _run(instance, whole), _run(instance, whole)
    for run_id in (first, second, of_gone, older, newest):
        _age(storage, run_id, 31)
    assert _prune(instance, kept_since) == (3, 2, True)
    assert _runs(storage) == {second, newest}
    assert instance.get_materialized_partitions(hourly.key) == {kept}
    event = instance.get_latest_materialization_event(whole.key)
    assert event and event.run_id == newest


def test_what_has_not_finished_is_never_touched(instance: dg.DagsterInstance, storage: Conn) -> None:
    run_id = _run(instance, hourly, "2026-10-02-00:00")
    for status in DagsterRunStatus:
        storage.execute("UPDATE runs SET status = %s", (status.value,))
        _age(storage, run_id, 31)
        expected = int(status in (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED))
        assert _prune(instance, dry_run=True)[0] == expected, status


def test_pruning_is_bounded_and_goes_on(
    instance: dg.DagsterInstance, storage: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline_platform.defs.operations.pruning._PORTION", 2)
    runs = [_run(instance, hourly, "2026-10-02-00:00") for _ in range(4)]
    # Between those that go, one that stays: the pages have to come past it.
    runs.insert(2, _run(instance, hourly, "2026-10-05-00:00"))
    for run_id in runs:
        _age(storage, run_id, 31)
    kept_since = datetime(2026, 10, 5, tzinfo=UTC)
    assert _prune(instance, kept_since, runs_max=3) == (3, 0, False)
    assert _prune(instance, kept_since, runs_max=3) == (1, 1, True)
    assert _runs(storage) == {runs[2]}


def test_the_schedule_prunes_by_the_setting_and_spares_kept_hours(
    conn: Conn, defs: dg.Definitions, instance: dg.DagsterInstance, storage: Conn
) -> None:
    hour = past_hours(1)[0]
    open_hour(conn, hour)
    old, of_kept = _run(instance, hourly, "2026-10-02-00:00"), _run(instance, hourly, key_of(hour))
    for run_id in (old, of_kept):
        _age(storage, run_id, 31)
    assert prune_runs.name == "prune_runs"
    job = defs.resolve_job_def(prune_runs.job_name)
    assert job.execute_in_process(instance=instance).success
    assert {old, of_kept} <= _runs(storage), "without a word of anybody it is a dry run"
    with dg.build_schedule_context(instance=instance) as context:
        config: Any = prune_runs.evaluate_tick(context).run_requests
    assert job.execute_in_process(instance=instance, run_config=config[0].run_config).success
    assert old not in _runs(storage) and of_kept in _runs(storage)
