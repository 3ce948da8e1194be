"""replay_diffs → replayed_hours: processes a window again beside production, then puts the result into production.

It is launched for an hour, or as a backfill over any range, which is one run and one replay. The workers do the work;
the run only begins the steps and follows them. PostgreSQL stores the progress by chunks, so the next run over the same
range continues a killed one. By default it is a dry run: it stops after the diff. commit_replay_job (replay_jobs.py),
or a run with `dry_run: false` over the same range, then commits.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import psycopg
from pydantic import Field

from pipeline_platform.db import queries
from pipeline_platform.defs.hours import HOUR, HOURS_SO_FAR, hour_of, key_of, ranges
from pipeline_platform.defs.launchpad import example, require_reason
from pipeline_platform.defs.policies import LONG, ONE_RUN, OWNED, OWNERS, REPLAYS_POOL, in_plain_words
from pipeline_platform.defs.replay.summary import samples, summary
from pipeline_platform.defs.resources import Platform
from pipeline_platform.errors import ClosedGateError
from pipeline_platform.migration.recovery.dropped import tenant_ids_of
from pipeline_platform.replay import report, steps
from pipeline_platform.replay.plan import Scope, make_plan
from pipeline_platform.settings import Settings

_SQL = queries("replay")
DIFFED, REPLAYED = dg.AssetKey("replay_diffs"), dg.AssetKey("replayed_hours")
_HOURS_A_REPLAY = 10_000
_NUMBERS = ("events", "added", "changed", "removed", "unchanged", "failed")

_common: dict[str, Any] = {
    "group_name": "replay",
    "owners": OWNERS,
    "code_version": "2",
    "kinds": {"postgres", "python"},
    "partitions_def": HOURS_SO_FAR,
    "skippable": True,
}


class ReplayConfig(dg.Config):
    """What a replay does."""

    reason: str = Field(description="Why, in a few words; it is kept with the replay. There is no default: be asked.")
    dry_run: bool = Field(
        default=True,
        description="true: say what would change, and change nothing. false: commit the diff of the same hours, "
        "tenants and types; without one, diff and commit at once. The default is true because production has users.",
    )
    tenants: list[str] = Field(
        default=[],
        description="Only these tenants, by name. Empty, the default: all, since a bug seldom asks whose event it is.",
    )
    types: list[str] = Field(
        default=[],
        description="Only these types of event: track, identify, page, screen, group, alias. Empty, the default: all.",
    )
    only_missing: bool = Field(
        default=False,
        description="true: add rows that production lacks, and touch none that it has. The default corrects and "
        "removes rows too, because that is what a corrected transform needs.",
    )


@dg.multi_asset(
    name="replay_hours",
    description="Processes hours again with the code that is installed; a dry run unless its config says otherwise.",
    specs=[
        dg.AssetSpec(
            DIFFED,
            deps=[dg.AssetKey("delivered_events")],
            description="What processing the hour again with the code that is installed would change in production: "
            "rows added, changed (by field) and removed, with samples. Nothing is changed by it.",
            **_common,
        ),
        dg.AssetSpec(
            REPLAYED,
            deps=[DIFFED],
            description="The hour in production, corrected as its diff said. undo_replay_job takes it back within the "
            "retention.",
            **_common,
        ),
    ],
    can_subset=True,
    partitions_def=HOURS_SO_FAR,
    backfill_policy=ONE_RUN,
    # Not in the pool of the hourly runs: a replay may take hours.
    pool=REPLAYS_POOL,
)
def replay_hours(context: dg.AssetExecutionContext, platform: Platform, config: ReplayConfig):
    # Without a return type: Dagster would read one as the types of the outputs.
    return _replay_hours(context, platform, config)


def _replay_hours(
    context: dg.AssetExecutionContext, platform: Platform, config: ReplayConfig
) -> Iterator[dg.AssetMaterialization]:
    require_reason(config.reason)
    commits = REPLAYED in context.selected_asset_keys and not config.dry_run
    settings = platform.settings()
    with in_plain_words(), platform.connect() as conn:
        tenant_ids = tenant_ids_of(conn, config.tenants)
        for hours in ranges(sorted(hour_of(key) for key in context.partition_keys), _HOURS_A_REPLAY):
            scope = Scope(hours[0], hours[-1] + HOUR, tenant_ids, config.types or None, config.only_missing)
            replay_id = _adopt(conn, scope, commits=commits) or _planned(context, conn, scope, config.reason)
            yield from materialized(DIFFED, run_step(context, conn, replay_id, "diff"), settings)
            if commits:
                yield from materialized(REPLAYED, run_step(context, conn, replay_id, "commit"), settings)


def _adopt(conn: psycopg.Connection[Any], scope: Scope, *, commits: bool) -> int | None:
    """The replay of the same scope that a killed run began or, for a commit, that a dry run prepared.

    ClosedGateError if its diff is not done and cannot be done, because batches that it reads are gone.
    """
    states = ["planned", "diffing", *(["diffed", "committing"] if commits else [])]
    row = conn.execute(_SQL["unfinished"], scope.params() | {"states": states}).fetchone()
    if row is None:
        return None
    if row[1] in ("planned", "diffing"):
        steps.require_hours(conn, row[0], all_chunks=row[1] == "planned")
    return row[0]


def _planned(context: dg.AssetExecutionContext, conn: psycopg.Connection[Any], scope: Scope, reason: str) -> int:
    plan = make_plan(conn, scope, reason)
    context.log.info(f"replay {plan.replay_id}: {plan.events:,} events, about {plan.seconds:,.0f} s")
    return plan.replay_id


def run_step(
    context: dg.AssetExecutionContext | dg.OpExecutionContext, conn: psycopg.Connection[Any], replay_id: int, step: str,
    *, takes_newer: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Begin the step unless it has begun, wait until it is done, and log its progress. Returns the diff's report."""
    state = steps.progress(conn, replay_id).state
    if step == "diff" and state not in ("planned", "diffing"):
        return report.diff(conn, replay_id)
    if step == "diff" and state == "planned":
        steps.start_diff(conn, replay_id)
    elif step == "commit" and state != "committing":
        steps.start_commit(conn, replay_id, takes_newer=takes_newer)
    said = 0

    def say(now: steps.Progress) -> None:
        nonlocal said
        tenth = 10 * now.chunks_done // now.chunks if now.chunks else 0
        if tenth > said:
            said = tenth
            left = f", {now.seconds_left:,.0f} s left" if now.seconds_left else ""
            context.log.info(f"{now.state}: {now.events_done:,} of {now.events:,}, {now.events_per_s:,.0f}/s{left}")

    ended = steps.wait(conn, replay_id, say)
    if ended.state not in ("diffed", "committed"):
        raise ClosedGateError(f"replay {replay_id} is {ended.state}: somebody ended it")
    return report.diff(conn, replay_id)


def materialized(asset: dg.AssetKey, found: dict[str, Any], settings: Settings) -> Iterator[dg.AssetMaterialization]:
    """One materialization for each hour of the window, with the hour's numbers and the replay's summary."""
    by_hour = {row["hour"]: row for row in found["hours"]}
    shared = {"summary": summary(found, settings), "replay_id": found["replay_id"], "samples": samples(found)}
    for key in hours_of(found):
        numbers = by_hour.get(hour_of(key), dict.fromkeys(_NUMBERS, 0))
        yield dg.AssetMaterialization(
            asset, partition=key, metadata={**shared, **{name: numbers[name] for name in _NUMBERS}}
        )


def hours_of(found: dict[str, Any]) -> list[str]:
    """The partitions of a replay's window."""
    first, end = found["window_start"], found["window_end"]
    start = first.replace(minute=0, second=0, microsecond=0)
    return [key_of(start + HOUR * place) for place in range(-((start - end) // HOUR))]


replay_job = dg.define_asset_job(  # pyright: ignore[reportUnknownMemberType]
    "replay_job",
    selection=dg.AssetSelection.assets(DIFFED, REPLAYED),
    description="Processes hours again with the code that is installed. **Materialize all…**, choose one hour or a "
    "range, and paste this config under **Config**:\n\n"
    + example("replay_hours", reason="prices were mangled", tenants=["acme"], dry_run=True)
    + "\n\nA range is one run and one replay. It changes nothing: see the diff at the asset `replay_diffs`; it says "
    "how to commit it. How: `docs/tutorial-replay-in-dagster.md`.",
    executor_def=dg.in_process_executor,
    tags=LONG,
    metadata=OWNED,
)
