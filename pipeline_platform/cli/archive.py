"""archive run, list, verify, restore."""

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline_platform.cli.output import (
    AsJson,
    DryRun,
    console,
    database,
    print_json,
    print_rows,
    running_settings,
)
from pipeline_platform.cli.values import Hour, hour_of
from pipeline_platform.errors import ConfigError

_COLUMNS = ("hour", "events", "bytes", "address", "error")


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Hours beyond the retention, as Parquet files.")
    group.command("run")(run)
    group.command("list")(list_)
    group.command("verify")(verify)
    group.command("restore")(restore)
    app.add_typer(group, name="archive")


def run(hour: Hour = None, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Archive the hours that are past retention, or one sealed hour; Dagster's retention_job does it every hour.

    Exit 1 if an hour could not be archived.

    Example: pipeline-platform archive run
    """
    from pipeline_platform.archive.hours import archive_hours, due_hours

    settings = running_settings()
    one = hour_of(hour)
    with database() as conn:
        hours = [one] if one else due_hours(conn, settings)
        done = [] if dry_run else archive_hours(conn, settings, hours)
    if as_json:
        print_json({"dry_run": dry_run, "hours": hours, "archived": [asdict(each) for each in done]})
    elif dry_run:
        for each in hours:
            console.print(f"would archive {each:%Y-%m-%d %H}:00")
        if not hours:
            console.print("nothing to archive")
    else:
        print_rows([asdict(each) for each in done], _COLUMNS, title="Archived", empty="nothing to archive")
    raise typer.Exit(1 if any(each.error for each in done) else 0)


def list_(as_json: AsJson = False) -> None:
    """All archived hours.

    Example: pipeline-platform archive list
    """
    from pipeline_platform.archive.hours import list_archives

    with database() as conn:
        found = list_archives(conn)
    if as_json:
        print_json({"archives": found})
        return
    columns = ("hour", "events", "bytes", "is_kept", "verified_at", "address")
    print_rows(found, columns, title="Archives", empty="no hour is archived")


def verify(hour: Hour = None, as_json: AsJson = False) -> None:
    """Read archived files back and compare them with their records; exit 1 if one is not what was archived.

    Example: pipeline-platform archive verify
    """
    from pipeline_platform.archive import hours

    with database() as conn:
        found = hours.verify(conn, hour_of(hour))
    if as_json:
        print_json({"verified": [asdict(each) for each in found]})
    else:
        print_rows([asdict(each) for each in found], _COLUMNS, title="Verified", empty="no hour is archived")
    raise typer.Exit(1 if any(each.error for each in found) else 0)


def restore(
    hour: Annotated[str, typer.Argument(help="The hour of received_at (2026-01-31T14:00).")],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")] = "",
    as_json: AsJson = False,
) -> None:
    """Restore a dropped hour into the queue for a replay. Its account does not change.

    Example: pipeline-platform archive restore 2026-01-31T14:00 --reason "replay of the price bug"
    """
    from pipeline_platform.archive import hours

    at = hour_of(hour)
    if not reason or at is None:
        raise ConfigError("archive restore needs a --reason")
    with database() as conn:
        events = hours.restore(conn, at, reason)
    if as_json:
        print_json({"hour": at, "events": events})
    else:
        console.print(f"restored {events:,} events of {at:%Y-%m-%d %H}:00; kept for another retention", highlight=False)
