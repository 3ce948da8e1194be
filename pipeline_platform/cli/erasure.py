"""erase: remove a person."""

from typing import Annotated

import typer

from pipeline_platform.cli.output import AsJson, DryRun, console, log_console, print_json, running_settings
from pipeline_platform.errors import ConfigError


def register(app: typer.Typer) -> None:
    app.command()(erase)


def erase(
    tenant: Annotated[str, typer.Option(help="Whose person it is.")],
    user: Annotated[str, typer.Option(help="The person's user id, as events say it.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log, so it must not name the person.")] = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Remove a person's events and traits from everything that is kept, for good; the account still balances.

    Events of anonymous and earlier ids that are this person's alone go as well: look at the dry run first.

    Example: pipeline-platform erase --tenant acme --user u-4711 --reason "request 2026-118" --dry-run
    """
    from pipeline_platform.erasure import erase as room

    if not user:
        raise ConfigError("--user is empty")
    if not reason and not dry_run:
        raise ConfigError("erase needs a --reason; --dry-run shows what it would take")
    settings = running_settings()
    if dry_run:
        found = room.plan(settings, tenant, user)
    else:
        with log_console.waiting("erasing") as show:
            found = room.erase(settings, tenant, user, reason, show)
    if as_json:
        print_json({"dry_run": dry_run} | found.to_json())
        return
    for place, by in sorted(found.found.items()):
        text = f"{place:14} {by['by_user_id']:>10,} by the user id  {by['by_other_ids']:>10,} by other ids"
        console.print(text, highlight=False)
    if found.person.shared:
        console.print(f"left alone: {len(found.person.shared)} ids that others use too", highlight=False)
    for other in sorted(found.person.users - {user}):
        console.print(f"earlier id, erased as well: {other}", highlight=False, markup=False)
    for other in sorted(found.person.now_known_as):
        console.print(f"merged into another user, not erased: {other}", highlight=False, markup=False)
    if dry_run:
        console.print("nothing was changed", highlight=False)
        return
    console.print(", ".join(f"{name} {rows:,}" for name, rows in sorted(found.changed.items())), highlight=False)
    for other in found.not_ours:
        console.print(f"not erased: {other}", highlight=False, markup=False)
    console.print(f"erasure {found.erasure_id}, tombstone {found.subject_hash[:16]}…", highlight=False)
