"""import: brings events of the past from a file directly into the queue."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline_platform.cli.output import (
    AsJson,
    DryRun,
    console,
    log_console,
    print_json,
    progress_bar,
    running_settings,
)

if TYPE_CHECKING:
    from pipeline_platform.imports.importer import ImportResult


def register(app: typer.Typer) -> None:
    app.command("import")(import_)


def import_(
    file: Annotated[str, typer.Argument(help="NDJSON, plain or gzip; `-`: standard input.")],
    tenant_field: Annotated[str, typer.Option(help="Field with the tenant's name; missing tenants are added.")],
    received_at: Annotated[
        str | None, typer.Option(help="Field with the time an event was received; default: now.")
    ] = None,
    shift_to_now: Annotated[
        bool, typer.Option("--shift-to-now", help="Move all times, so that the last event falls now.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Bring events of the past in, with received_at from the events. If it was killed, run it again: it continues.

    Exit 1 if lines are left out: they cannot be read, lie in the future, or are of hours past the retention.

    Example: pipeline-platform import events.ndjson.gz --tenant-field tenant --received-at timestamp --shift-to-now
    """
    from pipeline_platform.imports.importer import import_file
    from pipeline_platform.imports.source import Source, readable_twice

    settings = running_settings()
    with readable_twice(file) as path, progress_bar() as bar:
        task = bar.add_task("imported", total=None)
        result = import_file(
            settings,
            Source(path, tenant_field, received_at, settings.body_bytes_max),
            shift_to_now=shift_to_now,
            dry_run=dry_run,
            on_total=lambda total: bar.update(task, total=total),
            progress=lambda events: bar.advance(task, events),
        )
    for sample in result.bad_line_samples:
        log_console.print(sample, style="yellow", highlight=False, markup=False)
    if as_json:
        print_json(_as_json(result, dry_run=dry_run))
    else:
        _print(result, settings.retention_h, dry_run=dry_run)
    raise typer.Exit(1 if result.bad_lines or result.in_future or result.past_retention else 0)


def _as_json(result: "ImportResult", *, dry_run: bool) -> dict[str, Any]:
    return {
        "import_id": result.import_id,
        "dry_run": dry_run,
        "shift_s": result.shift_s,
        "accepted": result.accepted,
        "rejected": result.rejected,
        "erased": result.erased,
        "already_imported": result.already_imported,
        "hours": [{"hour": hour.isoformat(), "events": events} for hour, events in result.hours.items()],
        "past_retention": [
            {"hour": hour.isoformat(), "events": events} for hour, events in result.past_retention.items()
        ],
        "in_future": result.in_future,
        "bad_lines": result.bad_lines,
    }


def _print(result: "ImportResult", retention_h: int, *, dry_run: bool) -> None:
    verb = "would import" if dry_run else "imported"
    events = sum(result.hours.values()) - result.already_imported if dry_run else result.accepted
    console.print(
        f"{verb} {events:,} events in {len(result.hours)} hours; rejected {result.rejected:,}; "
        f"of erased people, left out {result.erased:,}; "
        f"imported before {result.already_imported:,}; unreadable lines {result.bad_lines:,}; "
        f"in the future {result.in_future:,}",
        highlight=False,
    )
    if result.past_retention:
        lost = sum(result.past_retention.values())
        console.print(f"past the retention of {retention_h} h, not imported: {lost:,}", highlight=False)
        for hour, count in result.past_retention.items():
            console.print(f"  {hour:%Y-%m-%d %H}:00  {count:,}", highlight=False)
