"""What is used of Dagster's private parts does what it did: an upgrade that changes it fails here."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from pipeline_platform.defs.recording import over_hours
from pipeline_platform.private_dagster import log_verdict, record_together, red_partitions, silent_output

DAYS = dg.DailyPartitionsDefinition("2026-10-01", end_date="2026-10-05")
KEY, NEXT = dg.AssetKey("recorded"), dg.AssetKey("follower")
RIGHT = dg.AssetCheckSpec("right", asset=KEY)
KEYS = ["2026-10-01", "2026-10-02", "2026-10-03"]


def _run(instance: dg.DagsterInstance, *assets: dg.AssetsDefinition) -> dg.ExecuteInProcessResult:
    tags = {"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": KEYS[-1]}
    job = dg.Definitions(assets=list(assets)).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def _recorded(instance: dg.DagsterInstance, key: dg.AssetKey = KEY) -> list[str | None]:
    return [each.partition_key for each in instance.fetch_materializations(key, limit=50, ascending=True).records]


def _multi_asset(step: Any, *checks: dg.AssetCheckSpec) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name="step",
        specs=[dg.AssetSpec(KEY, partitions_def=DAYS)],
        check_specs=checks,
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def found(context: dg.AssetExecutionContext):
        return step(context)

    return found


@dg.multi_asset(
    specs=[dg.AssetSpec(NEXT, deps=[KEY], partitions_def=DAYS)],
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def follower(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    return dg.MaterializeResult()


def test_a_silent_output_lets_the_next_step_run_and_records_nothing(instance: dg.DagsterInstance) -> None:
    def step(context: dg.AssetExecutionContext) -> Iterator[Any]:
        yield dg.AssetMaterialization(KEY, partition=KEYS[0])
        yield silent_output(KEY)

    assert _run(instance, _multi_asset(step), follower).success
    assert _recorded(instance) == KEYS[:1]
    assert _recorded(instance, NEXT) == KEYS


@pytest.mark.parametrize("size", ["0", "2", "500"])
def test_records_together_are_all_there_once(
    instance: dg.DagsterInstance, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", size)

    def step(context: dg.AssetExecutionContext) -> Iterator[Any]:
        record_together(context, [dg.AssetMaterialization(KEY, partition=key, metadata={"n": 1}) for key in KEYS])
        yield silent_output(KEY)

    assert _run(instance, _multi_asset(step)).success
    assert _recorded(instance) == KEYS
    assert instance.get_materialized_partitions(KEY) == set(KEYS)


def test_a_step_that_leaves_out_an_hour_fails_and_names_it(instance: dg.DagsterInstance) -> None:
    def step(context: dg.AssetExecutionContext) -> Iterator[Any]:
        return over_hours(context, (dg.AssetMaterialization(KEY, partition=key) for key in KEYS[:2]))

    result = _run(instance, _multi_asset(step), follower)
    assert not result.success
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert failed.step_failure_data.user_failure_data
    assert KEYS[2] in (failed.step_failure_data.user_failure_data.description or "")
    assert _recorded(instance) == KEYS[:2]
    assert _recorded(instance, NEXT) == []


def test_partitions_are_red_until_their_newest_verdict_passes(instance: dg.DagsterInstance) -> None:
    @dg.op
    def judge(context: dg.OpExecutionContext, config: dict[str, bool]) -> None:
        for key, passed in config.items():
            log_verdict(context, dg.AssetCheckEvaluation(KEY, "right", passed, partition=key))

    def judged(**verdicts: bool) -> list[str]:
        @dg.job
        def judgement() -> None:
            judge()

        assert judgement.execute_in_process(
            instance=instance, run_config={"ops": {"judge": {"config": verdicts}}}
        ).success
        return sorted(red_partitions(instance, RIGHT.key))

    assert judged(a=True, b=False, c=False) == ["b", "c"]
    assert judged(b=True) == ["c"]
    assert judged(a=False, c=True) == ["a"]


def test_a_verdict_that_never_came_does_not_hide_the_one_before(instance: dg.DagsterInstance) -> None:
    passes = [False]

    def step(context: dg.AssetExecutionContext) -> Iterator[Any]:
        if not passes:
            raise RuntimeError("dies before it judges")
        verdict = dg.AssetCheckEvaluation(KEY, "right", passes.pop(), partition=KEYS[1])
        yield verdict
        yield dg.AssetCheckResult(passed=True, asset_key=KEY, check_name="right")
        yield silent_output(KEY)

    judging = _multi_asset(step, RIGHT)
    assert _run(instance, judging).success
    assert list(red_partitions(instance, RIGHT.key)) == [KEYS[1]]
    assert not _run(instance, judging).success
    assert list(red_partitions(instance, RIGHT.key)) == [KEYS[1]]
