"""quarantine list, show."""

from typing import Annotated

import typer

from pipeline_platform.cli.output import AsJson, Limit, console, database, print_json, print_rows
from pipeline_platform.cli.since import Since, since_of
from pipeline_platform.operate import dead_letters


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Events that were received and not accepted.")
    group.command("list")(list_)
    group.command("show")(show)
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
    columns = ("quarantine_id", "tenant", "received_at", "message_id", "code", "message", "bytes")
    print_rows(found, columns, title="Quarantine", empty="nothing is in quarantine")


def show(
    quarantine_id: Annotated[int, typer.Argument(help="From `quarantine list`.")], as_json: AsJson = False
) -> None:
    """One quarantined event, with its original bytes.

    Example: pipeline-platform quarantine show 3
    """
    with database() as conn:
        found = dead_letters.show_quarantined(conn, quarantine_id)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        console.print(f"{name:14} {value}", highlight=False, markup=False)
