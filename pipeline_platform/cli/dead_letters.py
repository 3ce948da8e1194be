"""dead-letters list, show, redrive, discard."""

from typing import Annotated, Any

import typer

from pipeline_platform.cli.output import (
    AsJson,
    DryRun,
    Limit,
    console,
    database,
    print_json,
    print_rows,
)
from pipeline_platform.cli.since import Since, since_of
from pipeline_platform.cli.values import INT8_MAX
from pipeline_platform.dead_letters import operations as dead_letters
from pipeline_platform.dead_letters.operations import OPEN_STATES, Filter
from pipeline_platform.errors import ConfigError
from pipeline_platform.tenants.tenants import tenant_ids_of

Tenants = Annotated[list[str] | None, typer.Option("--tenant", help="Only this tenant's; may be given again.")]
Fingerprint = Annotated[str | None, typer.Option(help="Only this cause.")]
FailedIn = Annotated[str | None, typer.Option(help="Only what failed in this part: claim, transform, enrich or load.")]
ErrorClass = Annotated[str | None, typer.Option(help="Only of this class of error.")]
Until = Annotated[str | None, typer.Option(help="Only those buried before: a time, or how long ago (2h).")]
Ids = Annotated[list[int] | None, typer.Argument(min=1, max=INT8_MAX, help="Only these dead letters.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit log.")]
_GROUP = ("tenant", "fingerprint", "failed_in", "error_class", "sample_error", "events")


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Events that could not be written.")
    group.command("list")(list_)
    group.command("show")(show)
    group.command("redrive")(redrive)
    group.command("discard")(discard)
    app.add_typer(group, name="dead-letters")


def list_(
    tenant: Tenants = None,
    fingerprint: Fingerprint = None,
    since: Since = None,
    until: Until = None,
    failed_in: FailedIn = None,
    error_class: ErrorClass = None,
    state: Annotated[
        list[str] | None, typer.Option(help="waiting, exhausted, delivered, duplicate, discarded.")
    ] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Dead letters by tenant, cause, state and time.

    Example: pipeline-platform dead-letters list --tenant acme --since 2h
    """
    chosen = Filter(tenant, fingerprint, since_of(since), None, since_of(until, "--until"), failed_in, error_class)
    with database() as conn:
        found = dead_letters.list_dead_letters(conn, chosen, state or OPEN_STATES, limit)
    if as_json:
        print_json({"dead_letters": found})
        return
    columns = ("dead_letter_id", "tenant", "message_id", "failed_in", "error_class", "fingerprint", "state", "attempts")
    print_rows(found, columns, title="Dead letters", empty="no dead letters")


def show(
    dead_letter_id: Annotated[int, typer.Argument(min=1, max=INT8_MAX, help="From `dead-letters list`.")],
    unmasked: Annotated[bool, typer.Option("--unmasked", help="Show values of keys that name a secret too.")] = False,
    as_json: AsJson = False,
) -> None:
    """One dead letter, with its payload and error.

    Example: pipeline-platform dead-letters show 7
    """
    with database() as conn:
        found = dead_letters.show_dead_letter(conn, dead_letter_id, masked=not unmasked)
    _print_one(found, as_json)


def redrive(
    ids: Ids = None,
    tenant: Tenants = None,
    fingerprint: Fingerprint = None,
    since: Since = None,
    until: Until = None,
    failed_in: FailedIn = None,
    error_class: ErrorClass = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Try dead letters again now, with all their attempts; what succeeds is delivered, once.

    Example: pipeline-platform dead-letters redrive --fingerprint 3fa1… --reason "transform fixed"
    """
    _change(
        "redrive",
        Filter(tenant, fingerprint, since_of(since), ids, since_of(until, "--until"), failed_in, error_class),
        reason,
        dry_run,
        as_json,
    )


def discard(
    ids: Ids = None,
    tenant: Tenants = None,
    fingerprint: Fingerprint = None,
    since: Since = None,
    until: Until = None,
    failed_in: FailedIn = None,
    error_class: ErrorClass = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Discard dead letters, with a reason. Their events count as discarded.

    Example: pipeline-platform dead-letters discard 7 8 --reason "test data"
    """
    _change(
        "discard",
        Filter(tenant, fingerprint, since_of(since), ids, since_of(until, "--until"), failed_in, error_class),
        reason,
        dry_run,
        as_json,
    )


def _change(what: str, chosen: Filter, reason: str, dry_run: bool, as_json: bool) -> None:
    if chosen == Filter():
        raise ConfigError(
            f"{what} needs ids or a filter (--tenant, --fingerprint, --failed-in, --error-class, --since, --until)"
        )
    if not reason and not dry_run:
        raise ConfigError(f"{what} needs a --reason; --dry-run shows what it would take")
    with database() as conn:
        tenant_ids_of(conn, chosen.tenants or ())
        groups = dead_letters.count_open(conn, chosen)
        events = sum(group["events"] for group in groups)
        if not dry_run:
            change = dead_letters.redrive if what == "redrive" else dead_letters.discard
            events = change(conn, chosen, reason)
    if as_json:
        print_json({"dry_run": dry_run, "events": events, "groups": groups})
        return
    print_rows(groups, _GROUP, title=f"To {what}", empty="no open dead letter fits")
    console.print(f"{'would ' if dry_run else ''}{what} {events} dead letters", highlight=False)


def _print_one(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        console.print(f"{name:18} {value}", highlight=False, markup=False)
