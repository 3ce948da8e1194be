"""erase: remove a person."""

import json
from typing import Annotated, Any

import typer

from pipeline_platform.cli.output import (
    AsJson,
    DryRun,
    console,
    log_console,
    print_json,
    running_settings,
)
from pipeline_platform.errors import ConfigError
from pipeline_platform.event.person_ids import known_id

_IDS_SHOWN = 50


def register(app: typer.Typer) -> None:
    app.command()(erase)


def erase(
    tenant: Annotated[str, typer.Option(help="Whose person it is.")],
    user: Annotated[str, typer.Option(help="The person's user id, as events say it.")],
    also: Annotated[
        list[str] | None, typer.Option(help="Another user id of the same person; may be given again for more.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log, so it must not name the person.")] = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Remove a person's events and traits from everything that is kept, for good; the account still balances.

    Events of anonymous ids that are this person's alone go as well: look at the dry run first. It names each id, and
    which event links it. Other users that an alias event links are named, and erased only with --also.

    Example: pipeline-platform erase --tenant acme --user u-4711 --reason "request 2026-118" --dry-run
    """
    from pipeline_platform.erasure.erase import erase as erase_person
    from pipeline_platform.erasure.plan import plan

    also = also or []
    for option, value in (("--user", user), *(("--also", value) for value in also)):
        if not known_id(value):
            raise ConfigError(f"{option} is empty")
    if not reason and not dry_run:
        raise ConfigError("erase needs a --reason; --dry-run shows what it would take")
    settings = running_settings()
    if dry_run:
        found = plan(settings, tenant, user, also)
    else:
        with log_console.waiting("erasing") as show:
            found = erase_person(settings, tenant, user, reason, show, also=also)
    if as_json:
        print_json({"dry_run": dry_run} | found.to_json())
        return
    _print_ids(found.every_id(), dry_run=dry_run)
    for place, by in sorted(found.found.items()):
        text = f"{place:14} {by['by_user_id']:>10,} by the user id  {by['by_other_ids']:>10,} by other ids"
        console.print(text, highlight=False)
    if found.person.shared:
        console.print(f"left alone: {len(found.person.shared)} ids that others use too", highlight=False)
    if dry_run:
        console.print("nothing was changed", highlight=False)
        return
    console.print(", ".join(f"{name} {rows:,}" for name, rows in sorted(found.changed.items())), highlight=False)
    for other in found.not_ours:
        console.print(f"not erased: {other}", highlight=False, markup=False)
    console.print(f"erasure {found.erasure_id}, tombstone {found.subject_hash[:16]}…", highlight=False)


def _print_ids(rows: list[dict[str, Any]], *, dry_run: bool) -> None:
    """Print the erased ids with their links, and the ids that are kept. As JSON, since ids are untrusted input."""
    erased = [row for row in rows if row["is_erased"]]
    for row in erased[:_IDS_SHOWN]:
        _print_id("would erase" if dry_run else "erased", row)
    if len(erased) > _IDS_SHOWN:
        console.print(f"and {len(erased) - _IDS_SHOWN:,} more ids: --json shows all", highlight=False)
    others = [row for row in rows if not row["is_erased"]]
    for row in others:
        _print_id("not erased", row)
    if others:
        text = (
            "Whoever has a write key can send such a link. Is it the same person? Add --also ID, or erase it by itself."
        )
        console.print(text, highlight=False)


def _print_id(verb: str, row: dict[str, Any]) -> None:
    events = ", ".join(f"{place} {count:,}" for place, count in sorted(row["events"].items())) or "no events"
    text = f"{verb:12} {json.dumps(row['id'])}: {events} ({json.dumps(row['link'])[1:-1]})"
    console.print(text, highlight=False, markup=False)
