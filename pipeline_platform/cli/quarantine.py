"""quarantine list, show, readmit."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline_platform.cli.output import (
    AsJson,
    DryRun,
    Limit,
    console,
    database,
    print_json,
    print_rows,
    running_settings,
)
from pipeline_platform.cli.since import Since, since_of
from pipeline_platform.cli.values import INT8_MAX
from pipeline_platform.dead_letters import operations as dead_letters
from pipeline_platform.errors import ConfigError


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Events that were received and not accepted.")
    group.command("list")(list_)
    group.command("show")(show)
    group.command("readmit")(readmit)
    app.add_typer(group, name="quarantine")


def list_(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    code: Annotated[str | None, typer.Option(help="Only this reason.")] = None,
    since: Since = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Quarantined events, with the reason of each.

    Example: pipeline-platform quarantine list --code event_too_large
    """
    with database() as conn:
        found = dead_letters.list_quarantine(conn, tenant, code, since_of(since), limit)
    if as_json:
        print_json({"quarantined": found})
        return
    columns = ("quarantine_id", "tenant", "received_at", "message_id", "code", "message", "bytes", "readmitted_at")
    print_rows(found, columns, title="Quarantine", empty="nothing is in quarantine")


def show(
    quarantine_id: Annotated[int, typer.Argument(min=1, max=INT8_MAX, help="From `quarantine list`.")],
    unmasked: Annotated[bool, typer.Option("--unmasked", help="Show values of keys that name a secret too.")] = False,
    as_json: AsJson = False,
) -> None:
    """One quarantined event, with its original bytes.

    Example: pipeline-platform quarantine show 3
    """
    with database() as conn:
        found = dead_letters.show_quarantined(conn, quarantine_id, masked=not unmasked)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        console.print(f"{name:14} {value}", highlight=False, markup=False)


def readmit(
    correct: Annotated[Path, typer.Option(help="A Python file with correct(payload: bytes) -> bytes | dict | None.")],
    ids: Annotated[list[int] | None, typer.Argument(min=1, max=INT8_MAX, help="Only these quarantined events.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    code: Annotated[str | None, typer.Option(help="Only this reason.")] = None,
    since: Since = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")] = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Correct quarantined events and let them in, once; they are judged as at the gateway. None leaves an event there.

    Exit 1 if some are still refused.

    Example: pipeline-platform quarantine readmit --code missing_field --correct add_user.py --dry-run
    """
    from pipeline_platform.dead_letters.readmit import Quarantined, read_correction
    from pipeline_platform.dead_letters.readmit import readmit as let_in

    if not reason and not dry_run:
        raise ConfigError("readmit needs a --reason; --dry-run shows what would be let in")
    chosen = Quarantined(tenant, code, since_of(since), ids)
    if chosen == Quarantined():
        raise ConfigError("readmit needs ids or a filter (--tenant, --code, --since)")
    with database() as conn:
        done = let_in(conn, running_settings(), chosen, read_correction(correct), reason, dry_run=dry_run)
    if as_json:
        answer = {"accepted": done.accepted, "left": done.left, "refused": dict(done.refused), "samples": done.samples}
        print_json({"dry_run": dry_run, **answer})
    else:
        verb = "would let in" if dry_run else "let in"
        console.print(
            f"{verb} {done.accepted:,}; left {done.left:,}; refused {done.refused.total():,}", highlight=False
        )
        for name, events in done.refused.items():
            console.print(f"  {name:24} {events:,}", highlight=False, markup=False)
        for sample in done.samples:
            console.print(f"  {sample}", highlight=False, markup=False)
    raise typer.Exit(1 if done.refused else 0)
