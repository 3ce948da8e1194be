"""recover: delivers to production what the old pipeline dropped."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline_platform.cli.output import (
    AsJson,
    DryRun,
    console,
    database,
    log_console,
    print_json,
    progress_bar,
)
from pipeline_platform.cli.values import number
from pipeline_platform.cli.windows import From, Last, To, window_of
from pipeline_platform.errors import NotNowError

if TYPE_CHECKING:
    from pipeline_platform.migration.recovery.recover import Recovered

_TICK_S = 0.5


def register(app: typer.Typer) -> None:
    app.command()(recover)


def recover(
    reason: Annotated[str, typer.Option(help="Why; goes into the audit log.")] = "",
    start: From = None,
    end: To = None,
    last: Last = None,
    tenant: Annotated[list[str] | None, typer.Option(help="Only this tenant's; may be given again.")] = None,
    wait: Annotated[float, number(0, 86_400, "Seconds to wait until the window is settled.")] = 0.0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Put into production what the old pipeline dropped of a window. Idempotent; run it again after it was killed.

    The default is all that is kept and settled. Exit 1 if something is missing afterwards, or the window may still
    change.

    Example: pipeline-platform recover --last 2h --reason "dropped at the morning peak" --dry-run
    """
    from pipeline_platform.migration.reconcile import settled_until
    from pipeline_platform.migration.recovery.dropped import Window, tenant_ids_of
    from pipeline_platform.migration.recovery.recover import recover as recover_window

    if not reason and not dry_run:
        raise typer.BadParameter("say why with --reason, or only look with --dry-run")
    begin, until = window_of(start, end, last)
    with database() as conn, progress_bar() as bar:
        window = Window(
            begin or datetime(2000, 1, 1, tzinfo=UTC),
            until or settled_until(conn),
            tenant_ids_of(conn, tenant or []),
        )
        task = bar.add_task("recovered", total=None)
        found = _when_settled(
            lambda: recover_window(
                conn, window, reason=reason, dry_run=dry_run,
                on_events=lambda done, total: bar.update(task, completed=done, total=total),
            ),
            wait,
            lambda why: bar.update(task, description=why),
        )  # fmt: skip
    if as_json:
        print_json(_as_json(found, dry_run=dry_run))
    else:
        _print(found, dry_run=dry_run)
    raise typer.Exit(0 if dry_run or not found.missing_after else 1)


def _when_settled(attempt: Callable[[], "Recovered"], wait_s: float, say: Callable[[str], None]) -> "Recovered":
    """The recovery, tried until its window is settled. NotNowError if it is not after `wait_s` seconds."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return attempt()
        except NotNowError as error:
            if time.monotonic() >= deadline:
                raise
            say(str(error))
            time.sleep(_TICK_S)


def _as_json(found: "Recovered", *, dry_run: bool) -> dict[str, Any]:
    return {
        "recovery_id": found.recovery_id,
        "dry_run": dry_run,
        "dropped": found.dropped.events,
        "recovered": found.recovered,
        "already": found.dropped.already,
        "missing_after": found.missing_after,
        "stages": found.dropped.stages,
        "tenants": [{"tenant": name, "events": events} for name, events in found.tenants.items()],
        "samples": found.dropped.samples,
    }


def _print(found: "Recovered", *, dry_run: bool) -> None:
    verb = "would recover" if dry_run else "recovered"
    events = found.dropped.events if dry_run else found.recovered
    console.print(
        f"{verb} {events:,} events; recovered before {found.dropped.already:,}; still missing {found.missing_after:,}",
        highlight=False,
    )
    for name, count in found.tenants.items():
        console.print(f"  {name:30} {count:,}", highlight=False, markup=False)
    for stage, count in found.dropped.stages.items():
        log_console.print(f"  lost at {stage}: {count:,}", highlight=False)
