"""replay_diffs: processes a window again beside production, and says what would change. Nothing is changed by it.

It is launched for an hour, or over any range, which is one run and one replay. The workers do the work; the run only
begins it and follows it. PostgreSQL stores the progress by chunks, so the next run over the same range continues a
killed one. commit_replay_job (jobs.py) puts the result into production, and undo_replay_job takes it back.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import psycopg
from pydantic import Field

from pipeline_platform.db import queries
from pipeline_platform.defs.hours import HOUR, HOURS_SO_FAR, SAME_HOUR, hour_of, key_of, ranges
from pipeline_platform.defs.launchpad import example, reason_of
from pipeline_platform.defs.policies import LONG, ONE_RUN, OWNED, OWNERS, PERSONAL_DATA, REPLAYS_POOL, in_plain_words
from pipeline_platform.defs.recording import hour_record, hours_text, over_hours
from pipeline_platform.defs.replay.summary import hour_metadata
from pipeline_platform.defs.resources import Platform
from pipeline_platform.errors import ClosedGateError
from pipeline_platform.migration.recovery.dropped import tenant_ids_of
from pipeline_platform.replay import report, steps
from pipeline_platform.replay.plan import PastRetentionError, Scope, make_plan
from pipeline_platform.settings import Settings

_SQL = queries("replay")
DIFFED, REPLAYED = dg.AssetKey("replay_diffs"), dg.AssetKey("replayed_hours")
_HOURS_A_REPLAY = 10_000

_common: dict[str, Any] = {
    "group_name": "replay",
    "owners": OWNERS,
    "code_version": "3",
    "kinds": {"postgres", "python"},
    "partitions_def": HOURS_SO_FAR,
    "tags": PERSONAL_DATA,
}

replayed_hours = dg.AssetSpec(
    REPLAYED,
    deps=[DIFFED],
    description="The hour in production, corrected as its diff said; after an undo it says so. It cannot be "
    "materialized here: commit_replay_job does it with the number of a diff, and undo_replay_job takes it back.",
    **_common,
)


class ReplayConfig(dg.Config):
    """What to process again."""

    reason: str = Field(
        default="",
        description="Why, in a few words; it is kept with the replay. Empty, the default: from where it was launched.",
    )
    tenants: list[str] = Field(
        default=[],
        description="Only these tenants, by name. Empty, the default: all, because a bug usually affects all.",
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
    description="Processes hours again with the code that is installed, and compares; changes nothing.",
    specs=[
        dg.AssetSpec(
            DIFFED,
            deps=[dg.AssetDep("delivered_events", partition_mapping=SAME_HOUR)],
            description="What processing the hour again with the code that is installed would change in production: "
            "rows added, changed (by field) and removed, with samples. Nothing is changed by it.",
            **_common,
        )
    ],
    partitions_def=HOURS_SO_FAR,
    backfill_policy=ONE_RUN,
    # Not in the pool of the hourly runs: a replay may take hours.
    pool=REPLAYS_POOL,
)
def replay_hours(context: dg.AssetExecutionContext, platform: Platform, config: ReplayConfig):
    # Without a return type: Dagster would read one as the types of the outputs.
    return over_hours(context, _replay_hours(context, platform, config))


def _replay_hours(
    context: dg.AssetExecutionContext, platform: Platform, config: ReplayConfig
) -> Iterator[dg.AssetMaterialization]:
    reason = reason_of(context, config.reason)
    settings = platform.settings()
    with in_plain_words(), platform.connect() as conn:
        tenant_ids = tenant_ids_of(conn, config.tenants)
        for hours in ranges(sorted(hour_of(key) for key in context.partition_keys), _HOURS_A_REPLAY):
            scope = Scope(hours[0], hours[-1] + HOUR, tenant_ids, config.types or None, config.only_missing)
            replay_id = _adopt(conn, scope) or _planned(context, conn, scope, reason)
            yield from materialized(DIFFED, run_step(context, conn, replay_id, "diff"), settings)


def _adopt(conn: psycopg.Connection[Any], scope: Scope) -> int | None:
    """The replay of the same scope that a killed run began.

    ClosedGateError if its diff is not done and cannot be done, because batches that it reads are gone.
    """
    row = conn.execute(_SQL["unfinished"], scope.params() | {"states": ["planned", "diffing"]}).fetchone()
    if row is None:
        return None
    steps.require_hours(conn, row[0], all_chunks=row[1] == "planned")
    return row[0]


def _planned(context: dg.AssetExecutionContext, conn: psycopg.Connection[Any], scope: Scope, reason: str) -> int:
    try:
        plan = make_plan(conn, scope, reason)
    except PastRetentionError as error:
        raise dg.Failure(f"{error}.{_kept(conn, scope)}", allow_retries=False) from error
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
        raise ClosedGateError(f"replay {replay_id} is {ended.state}: it was ended by another command")
    return report.diff(conn, replay_id)


def _kept(conn: psycopg.Connection[Any], scope: Scope) -> str:
    """The part of the window after its last dropped hour, to launch instead."""
    gone = [hour for (hour,) in conn.execute(_SQL["gaps"], scope.params()).fetchall()]
    first = max(gone) + HOUR if gone else scope.start
    if first >= scope.end:
        return ""
    return f" Launch it over {hours_text([key_of(first), key_of(scope.end - HOUR)])}"


def materialized(asset: dg.AssetKey, found: dict[str, Any], settings: Settings) -> Iterator[dg.AssetMaterialization]:
    """One record for each hour of the window, with the hour's numbers and the replay's summary."""
    by_hour = {row["hour"]: row for row in found["hours"]}
    for key in hours_of(found):
        yield hour_record(asset, key, hour_metadata(found, by_hour.get(hour_of(key)), settings))


def hours_of(found: dict[str, Any]) -> list[str]:
    """The partitions of a replay's window."""
    first, end = found["window_start"], found["window_end"]
    start = first.replace(minute=0, second=0, microsecond=0)
    return [key_of(start + HOUR * place) for place in range(-((start - end) // HOUR))]


replay_job = dg.define_asset_job(  # pyright: ignore[reportUnknownMemberType]
    "replay_job",
    selection=dg.AssetSelection.assets(DIFFED),
    description="Processes hours again with the code that is installed, and says what would change. "
    "**Materialize…**, choose one hour or a range, and paste this config under **Config**:\n\n"
    + example("replay_hours", reason="prices were mangled", tenants=["acme"])
    + "\n\nA range is one run and one replay. It changes nothing: see the diff at the asset `replay_diffs`; it says "
    "how to commit it. How: `docs/tutorial-replay-in-dagster.md`.",
    executor_def=dg.in_process_executor,
    tags=LONG,
    metadata=OWNED,
)
