"""commit_replay_job and undo_replay_job: put a reviewed diff into production, and undo it.

Both take a replay's number, so the reviewed diff is the one that is committed. The next run with the same number
continues a killed one.
"""

import dagster as dg
from pydantic import Field

from pipeline_platform.defs.launchpad import prefilled, require_reason
from pipeline_platform.defs.policies import LONG, OWNED, REPLAYS_POOL, in_plain_words
from pipeline_platform.defs.replay.diffs import REPLAYED, materialized, run_step
from pipeline_platform.defs.replay.summary import summary
from pipeline_platform.defs.resources import Platform
from pipeline_platform.replay import report, steps

_WHICH = "The number of the replay: `replay_id` at the asset replay_diffs, or from `pipeline-platform replay list`."


class CommitConfig(dg.Config):
    """Which diff to commit."""

    replay_id: int = Field(description=_WHICH)
    take_newer: bool = Field(
        default=False,
        description="true: rows that changed in production since the diff too. The default skips and counts them, "
        "since nobody has looked at what would be written over.",
    )


@dg.op(description="Puts into production what the diff of a replay found, and nothing else.", pool=REPLAYS_POOL)
def commit_replay(context: dg.OpExecutionContext, platform: Platform, config: CommitConfig) -> None:
    with in_plain_words(), platform.connect() as conn:
        found = run_step(context, conn, config.replay_id, "commit", takes_newer=config.take_newer)
    for event in materialized(REPLAYED, found, platform.settings()):
        context.log_event(event)
    context.add_output_metadata({**found["committed"], "summary": summary(found, platform.settings())})


@dg.job(  # pyright: ignore[reportUnknownMemberType]
    description="Puts into production what the diff of a replay found, and nothing else: give its number in the "
    "**Launchpad**. The reason is the one that the replay was launched with. `undo_replay_job` takes it back.",
    config=prefilled("commit_replay", CommitConfig),
    executor_def=dg.in_process_executor,
    tags=LONG,
    metadata=OWNED,
)
def commit_replay_job() -> None:
    commit_replay()


class UndoConfig(dg.Config):
    """Which replay to undo."""

    replay_id: int = Field(description=_WHICH)
    reason: str = Field(description="Why, in a few words; goes into the audit log. There is no default.")
    dry_run: bool = Field(
        default=True,
        description="true: say how many rows it would take back. false: do it. The default is true, because this "
        "changes production.",
    )


@dg.op(description="Restores production as it was before the commit of a replay.", pool=REPLAYS_POOL)
def undo_replay(context: dg.OpExecutionContext, platform: Platform, config: UndoConfig) -> None:
    require_reason(config.reason)
    settings = platform.settings()
    with in_plain_words(), platform.connect() as conn:
        state = steps.progress(conn, config.replay_id).state
        if not config.dry_run:
            if state != "undoing":
                steps.start_undo(conn, config.replay_id, config.reason)
            steps.wait(conn, config.replay_id)
        found = report.diff(conn, config.replay_id)
    context.add_output_metadata({**found["undo"], "state": found["state"], "summary": summary(found, settings)})
    if config.dry_run:
        rows = sum(found["committed"][name] for name in ("added", "changed", "removed"))
        context.log.info(f"replay {config.replay_id} is {state}: {rows:,} rows to take back. `dry_run: false` does it")
        return
    # A new record, so that the hour does not read as replayed.
    for event in materialized(REPLAYED, found, settings):
        context.log_event(event)
    undone = found["undo"]
    context.log.info(
        f"restored {undone['restored']:,} rows; {undone['left_alone']:,} had been replaced since, "
        f"{undone['kept_newer']:,} were delivered or sent again, or erased"
    )


@dg.job(  # pyright: ignore[reportUnknownMemberType]
    description="Takes back what a replay committed: give its number and a reason in the **Launchpad**. A dry run "
    "unless `dry_run` is false. Rows that a later replay replaced are named and left.",
    config=prefilled("undo_replay", UndoConfig),
    executor_def=dg.in_process_executor,
    tags=LONG,
    metadata=OWNED,
)
def undo_replay_job() -> None:
    undo_replay()
