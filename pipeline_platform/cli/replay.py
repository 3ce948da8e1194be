"""replay plan, diff, commit, undo and related commands."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import psycopg
import typer

from pipeline_platform.cli.output import (
    AsJson,
    Limit,
    console,
    database,
    log_console,
    print_json,
    print_rows,
    progress_bar,
)
from pipeline_platform.cli.values import INT8_MAX, number
from pipeline_platform.cli.windows import From, Last, To, window_of
from pipeline_platform.errors import ConfigError
from pipeline_platform.telemetry.terminal import lines

ReplayId = Annotated[int, typer.Argument(min=1, max=INT8_MAX, help="From `replay plan` or `replay list`.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return at once; see `replay show`.")]
_COUNTS = ("events", "added", "changed", "removed", "unchanged", "duplicate", "discarded", "failed")


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Process a window of what was accepted again.")
    for command in (plan, diff, commit, undo, show, pause, resume, cancel, limit):
        group.command()(command)
    group.command("list")(list_)
    app.add_typer(group, name="replay")


def plan(
    reason: Annotated[str, typer.Option(help="Why; kept with the replay.")],
    start: From = None,
    end: To = None,
    last: Last = None,
    tenant: Annotated[list[str] | None, typer.Option(help="Only this tenant's; may be given again.")] = None,
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="Only track, identify, page, screen, group or alias.")
    ] = None,
    only: Annotated[str, typer.Option(help="missing: add what is not there; all: correct and remove as well.")] = "all",
    as_json: AsJson = False,
) -> None:
    """Count what is in a window and give the replay an id; nothing is processed yet.

    Example: pipeline-platform replay plan --last 3h --tenant acme --reason "prices were mangled"
    """
    from datetime import UTC, datetime

    from pipeline_platform.migration.recovery.dropped import tenant_ids_of
    from pipeline_platform.replay.plan import Scope, make_plan

    if only not in ("missing", "all"):
        raise ConfigError(f"--only {only}: missing or all")
    begin, until = window_of(start, end, last)
    if begin is None:
        raise ConfigError("say which window: --from and --to, or --last")
    now = datetime.now(UTC)
    with database() as conn:
        scope = Scope(
            begin, min(until or now, now), tenant_ids_of(conn, tenant or []), type_ or None, only == "missing"
        )
        found = make_plan(conn, scope, reason)
    if as_json:
        print_json(
            {
                "replay_id": found.replay_id,
                "events": found.events,
                "hours": [{"hour": hour, "events": events} for hour, events in found.hours.items()],
                "tenants": [{"tenant": name, "events": events} for name, events in found.tenants.items()],
                "seconds_estimated": round(found.seconds, 1),
                "bytes_max": found.bytes_max,
                "unswept_hours": found.unswept,
            }
        )
        return
    _print_unswept(found.unswept)
    console.print(lines(
        f"replay {found.replay_id}: {found.events:,} events in {len(found.hours)} hours of {len(found.tenants)} "
        f"tenants; about {found.seconds:,.0f} s, at most {found.bytes_max / 1e6:,.0f} MB\n"
        f"next: pipeline-platform replay diff {found.replay_id}"
    ))  # fmt: skip


def diff(replay_id: ReplayId, no_wait: NoWait = False, as_json: AsJson = False) -> None:
    """Process the plan's events without changing production, and show what would change. A finished diff is shown.

    Example: pipeline-platform replay diff 7
    """
    from pipeline_platform.replay import report, steps

    with database() as conn:
        if steps.progress(conn, replay_id).state == "planned":
            steps.start_diff(conn, replay_id)
        _wait(conn, replay_id, no_wait=no_wait)
        found = report.diff(conn, replay_id)
    if as_json:
        print_json(found)
        return
    _print_state(found)
    _print_unswept(found["unswept_hours"])
    print_rows([found["totals"]], _COUNTS, title="Diff", empty="")
    print_rows(found["fields"], ("field", "rows"), title="Changed fields", empty="no field changed")
    print_rows(found["tenants_found"][:20], ("tenant", *_COUNTS[:5], "failed"), title="By tenant", empty="no events")
    columns = ("action", "tenant", "message_id", "now", "replayed")
    print_rows(found["samples"], columns, title="Samples", empty="nothing differs")
    if found["state"] == "diffed":
        console.print(f"next: pipeline-platform replay commit {replay_id}", highlight=False)


def commit(
    replay_id: ReplayId,
    newer: Annotated[
        bool, typer.Option("--newer", help="Also rows that changed in production since the diff.")
    ] = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Write the rows of the diff into production. Exit 1 if rows were skipped because they changed since.

    Example: pipeline-platform replay commit 7
    """
    from pipeline_platform.replay import report, steps

    with database() as conn:
        if steps.progress(conn, replay_id).state != "committing":
            steps.start_commit(conn, replay_id, takes_newer=newer)
        _wait(conn, replay_id, no_wait=no_wait)
        found = report.show(conn, replay_id)
    _answer(found, as_json)
    raise typer.Exit(1 if found["committed"]["skipped"] else 0)


def undo(
    replay_id: ReplayId,
    reason: Annotated[str, typer.Option(help="Why; goes into the audit log.")],
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Restore production as it was before the commit.

    Example: pipeline-platform replay undo 7 --reason "wrong tenant"
    """
    from pipeline_platform.replay import report, steps

    with database() as conn:
        if steps.progress(conn, replay_id).state != "undoing":
            steps.start_undo(conn, replay_id, reason)
        _wait(conn, replay_id, no_wait=no_wait)
        found = report.show(conn, replay_id)
    _answer(found, as_json)
    undone = found["undo"]
    raise typer.Exit(1 if found["state"] == "undone" and (undone["left_alone"] or undone["kept_newer"]) else 0)


def show(replay_id: ReplayId, as_json: AsJson = False) -> None:
    """One replay: its state, progress and rate.

    Example: pipeline-platform replay show 7
    """
    from pipeline_platform.replay import report

    with database() as conn:
        found = report.show(conn, replay_id)
    _answer(found, as_json)


def list_(limit: Limit = 20, as_json: AsJson = False) -> None:
    """The newest replays.

    Example: pipeline-platform replay list
    """
    from pipeline_platform.replay import report

    with database() as conn:
        found = report.list_replays(conn, limit)
    if as_json:
        print_json({"replays": found})
        return
    columns = ("replay_id", "state", "is_paused", "window_start", "window_end", "planned_events", "reason")
    print_rows(found, columns, title="Replays", empty="no replays")


def pause(replay_id: ReplayId) -> None:
    """Pause a replay after the chunks that workers hold.

    Example: pipeline-platform replay pause 7
    """
    _set_paused(replay_id, is_paused=True)


def resume(replay_id: ReplayId) -> None:
    """Continue a paused replay.

    Example: pipeline-platform replay resume 7
    """
    _set_paused(replay_id, is_paused=False)


def cancel(replay_id: ReplayId) -> None:
    """End a replay that has changed nothing yet.

    Example: pipeline-platform replay cancel 7
    """
    from pipeline_platform.replay import steps

    with database() as conn:
        steps.cancel(conn, replay_id)


def limit(
    share: Annotated[float, number(0, 1, "At least this part of each worker's time (0 to 1).")],
    cap: Annotated[float, number(0, 1, "At most this part of each worker's time (0 to 1).")],
) -> None:
    """Limit what replays may use from now on, including those under way.

    Example: pipeline-platform replay limit --share 0.1 --cap 0.3
    """
    from pipeline_platform.replay import steps

    with database() as conn:
        steps.limit_lane(conn, share, cap)


def _set_paused(replay_id: int, *, is_paused: bool) -> None:
    from pipeline_platform.replay import steps

    with database() as conn:
        steps.set_paused(conn, replay_id, is_paused=is_paused)


def _wait(conn: psycopg.Connection[Any], replay_id: int, *, no_wait: bool) -> None:
    from pipeline_platform.replay import steps

    if no_wait:
        return
    with progress_bar() as bar:
        task = bar.add_task(f"replay {replay_id}", total=None)
        steps.wait(
            conn, replay_id,
            lambda now: bar.update(
                task, completed=now.events_done, total=now.events,
                description=f"replay {replay_id} {now.state}, {now.events_per_s:,.0f} events/s",
            ),
        )  # fmt: skip


def _answer(found: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    _print_state(found)
    committed = found["committed"]
    if any(committed.values()):
        print_rows([committed], tuple(committed), title="Committed", empty="")
    if found["skipped"]:
        columns = ("tenant", "message_id", "action", "fields")
        print_rows(found["skipped"], columns, title="Skipped: they changed since the diff", empty="")
    if found["state"] in ("undoing", "undone"):
        print_rows([found["undo"]], ("restored", "kept_newer", "left_alone"), title="Undo", empty="")


def _print_unswept(hours: Sequence[datetime]) -> None:
    if hours:
        console.print(
            f"{len(hours)} hours do not hold all that was accepted, the first {hours[0]:%Y-%m-%dT%H:%MZ}: "
            "nothing in them is called removed",
            highlight=False, markup=False,
        )  # fmt: skip


def _print_state(found: Mapping[str, Any]) -> None:
    done = found["progress"]
    left = "" if done["seconds_left"] is None else f", {done['seconds_left']:,.0f} s left"
    running = "" if done["events_done"] >= done["events"] else f": {done['events_done']:,} of {done['events']:,}{left}"
    why = f" ({found['paused_because']})" if found["paused_because"] else ""
    paused = f", paused{why}" if found["is_paused"] else ""
    versions = f" (transform {', '.join(found['transform_from']) or '?'} to {found['transform_to']})"
    console.print(
        f"replay {found['replay_id']} is {found['state']}{paused}{running}"
        + (versions if found["transform_to"] else ""),
        highlight=False, markup=False,
    )  # fmt: skip
    log_console.print(f"{found['reason']} ({found['actor']})", highlight=False, markup=False)
