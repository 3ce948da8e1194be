"""replay_diffs → replayed_hours: a window is processed again beside production, then put into it.

Launched for an hour or as a backfill over any range, which is one run and one replay. The work is the workers'; a run
only begins the steps and looks on. What is done is kept in PostgreSQL by chunks, so a run that was killed is gone on
with by the next one over the same range. By default it is a dry run: it stops after the diff, which a run with
`dry_run: false` over the same range then commits.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import psycopg
from pydantic import Field

from pipeline_platform.db import queries
from pipeline_platform.defs.hours import HOUR, HOURS_SO_FAR, hour_of, key_of, ranges
from pipeline_platform.defs.owners import OWNED, OWNERS
from pipeline_platform.defs.resources import Platform
from pipeline_platform.errors import NotNowError, PipelineError
from pipeline_platform.recovery.dropped import tenant_ids_of
from pipeline_platform.replay import report, steps
from pipeline_platform.replay.plan import Scope, make_plan

_SQL = queries("replay")
DIFFED, REPLAYED = dg.AssetKey("replay_diffs"), dg.AssetKey("replayed_hours")
_HOURS_A_REPLAY = 10_000

_common: dict[str, Any] = {
    "group_name": "replay",
    "owners": OWNERS,
    "code_version": "1",
    "kinds": {"postgres", "python"},
    "partitions_def": HOURS_SO_FAR,
    "skippable": True,
}


class ReplayConfig(dg.Config):
    """What a replay does."""

    reason: str = Field(description="Why; it is kept with the replay.")
    dry_run: bool = Field(default=True, description="Stop after the diff: say what would change, and change nothing.")
    tenants: list[str] = Field(default=[], description="Only these tenants, by name; none: all.")
    types: list[str] = Field(default=[], description="Only these types of event (track, identify, …); none: all.")
    only_missing: bool = Field(default=False, description="Add what production lacks; leave alone what it has.")


@dg.multi_asset(
    name="replay_hours",
    description="Processes hours again with the code that is installed; a dry run unless its config says otherwise.",
    specs=[
        dg.AssetSpec(
            DIFFED,
            deps=[dg.AssetKey("delivered_events")],
            description="What processing the hour again would change in production: rows added, changed (by field) and "
            "removed, with samples.",
            **_common,
        ),
        dg.AssetSpec(
            REPLAYED,
            deps=[DIFFED],
            description="The hour, corrected as its diff said; undo_replay_job takes it back within the retention.",
            **_common,
        ),
    ],
    can_subset=True,
    partitions_def=HOURS_SO_FAR,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool="hours",
)
def replay_hours(context: dg.AssetExecutionContext, platform: Platform, config: ReplayConfig):
    # Without a return type: Dagster would read one as the types of the outputs.
    return _replay_hours(context, platform, config)


def _replay_hours(
    context: dg.AssetExecutionContext, platform: Platform, config: ReplayConfig
) -> Iterator[dg.AssetMaterialization]:
    commits = REPLAYED in context.selected_asset_keys and not config.dry_run
    with platform.connect() as conn:
        for hours in ranges(sorted(hour_of(key) for key in context.partition_keys), _HOURS_A_REPLAY):
            try:
                scope = Scope(
                    hours[0], hours[-1] + HOUR, tenant_ids_of(conn, config.tenants), config.types or None,
                    config.only_missing,
                )  # fmt: skip
                replay_id = _adopt(conn, scope, commits=commits) or _planned(context, conn, scope, config.reason)
                found = _step(context, conn, replay_id, "diff")
                yield from _materialized(DIFFED, found, "Commit it: launch again with `dry_run: false`.")
                if commits:
                    done = _step(context, conn, replay_id, "commit")
                    yield from _materialized(REPLAYED, done, "Undo it: `undo_replay_job`.")
            except NotNowError:
                raise
            except PipelineError as error:
                raise dg.Failure(str(error), allow_retries=False) from error


def _adopt(conn: psycopg.Connection[Any], scope: Scope, *, commits: bool) -> int | None:
    """What a killed run left of the same scope or, for a commit, what a dry run prepared."""
    states = ["planned", "diffing", *(["diffed", "committing"] if commits else [])]
    row = conn.execute(_SQL["unfinished"], scope.params() | {"states": states}).fetchone()
    return row[0] if row else None


def _planned(context: dg.AssetExecutionContext, conn: psycopg.Connection[Any], scope: Scope, reason: str) -> int:
    plan = make_plan(conn, scope, reason)
    context.log.info(f"replay {plan.replay_id}: {plan.events:,} events, about {plan.seconds:,.0f} s")
    return plan.replay_id


def _step(
    context: dg.AssetExecutionContext, conn: psycopg.Connection[Any], replay_id: int, step: str
) -> dict[str, Any]:
    """Begin the step where it has not begun, and wait until it is done."""
    state = steps.progress(conn, replay_id).state
    if step == "diff" and state == "planned":
        steps.start_diff(conn, replay_id)
    elif step == "commit" and state == "diffed":
        steps.start_commit(conn, replay_id)
    said = 0

    def say(now: steps.Progress) -> None:
        nonlocal said
        tenth = 10 * now.chunks_done // now.chunks if now.chunks else 0
        if tenth > said:
            said = tenth
            left = f", {now.seconds_left:,.0f} s left" if now.seconds_left else ""
            context.log.info(f"{now.state}: {now.events_done:,} of {now.events:,}, {now.events_per_s:,.0f}/s{left}")

    steps.wait(conn, replay_id, say)
    return report.diff(conn, replay_id)


def _materialized(asset: dg.AssetKey, found: dict[str, Any], after: str) -> Iterator[dg.AssetMaterialization]:
    """One for each hour of the window: its own numbers, and the replay's summary."""
    by_hour = {row["hour"]: row for row in found["hours"]}
    hour = found["window_start"]
    while hour < found["window_end"]:
        numbers = {name: value for name, value in by_hour.get(hour, {"events": 0}).items() if name != "hour"}
        yield dg.AssetMaterialization(
            asset,
            partition=key_of(hour),
            metadata={
                **numbers,
                "replay_id": found["replay_id"],
                "summary": dg.MetadataValue.md(_summary(found, after)),
                "samples": dg.MetadataValue.json(_plain(found["samples"])),
            },
        )
        hour += HOUR


def _summary(found: dict[str, Any], after: str) -> str:
    totals, committed = found["totals"], found["committed"]
    lines = [
        f"**Replay {found['replay_id']}**, {found['state']}: {found['reason']}",
        "",
        f"Transform {', '.join(found['transform_from']) or 'unknown'} → {found['transform_to']}; of "
        f"{totals['events']:,} events {totals['added']:,} added, {totals['changed']:,} changed, "
        f"{totals['removed']:,} removed, {totals['unchanged']:,} unchanged, {totals['failed']:,} failed.",
        "",
        *(f"* `{row['field']}`: {row['rows']:,} rows" for row in found["fields"][:20]),
    ]
    if found["state"] == "committed":
        lines += ["", ", ".join(f"{name} {count:,}" for name, count in committed.items())]
    return "\n".join([*lines, "", after if report.differs(totals) else "Nothing differs."])


def _plain(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As JSON has it."""
    return [{**sample, "event_id": str(sample["event_id"]), "received_at": sample["received_at"].isoformat()}
            for sample in samples]  # fmt: skip


replay_job = dg.define_asset_job(  # pyright: ignore[reportUnknownMemberType]
    "replay_job",
    selection=dg.AssetSelection.assets(DIFFED, REPLAYED),
    description="Processes an hour, or a range of hours in one run, again. Say why in its config; with "
    "`dry_run: false` it puts into production what the diff of the same range found.",
    executor_def=dg.in_process_executor,
    metadata=OWNED,
)


class UndoConfig(dg.Config):
    """Which replay to undo."""

    replay_id: int = Field(description="From the metadata of replayed_hours, or `pipeline-platform replay list`.")
    reason: str = Field(description="Why; goes into the audit log.")


@dg.op(description="Restores production as it was before the commit of a replay.")
def undo_replay(context: dg.OpExecutionContext, platform: Platform, config: UndoConfig) -> None:
    with platform.connect() as conn:
        try:
            if steps.progress(conn, config.replay_id).state != "undoing":
                steps.start_undo(conn, config.replay_id, config.reason)
        except PipelineError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        steps.wait(conn, config.replay_id)
        undone = report.show(conn, config.replay_id)["undo"]
    context.add_output_metadata(undone)
    context.log.info(f"restored {undone['restored']:,} rows; {undone['left_alone']:,} had been replaced since")


@dg.job(  # pyright: ignore[reportUnknownMemberType]
    description="Takes back what a replay committed; rows that a later replay replaced are named and left.",
    executor_def=dg.in_process_executor,
    metadata=OWNED,
)
def undo_replay_job() -> None:
    undo_replay()
