"""warehouse run, list, verify."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from pipeline_platform.cli.output import (
    AsJson,
    DryRun,
    console,
    database,
    print_json,
    print_rows,
    progress_bar,
    running_settings,
)
from pipeline_platform.cli.values import Hour, hour_of
from pipeline_platform.errors import PipelineError


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Delivered hours as Parquet files with manifests, for a warehouse.")
    group.command("run")(run)
    group.command("list")(list_)
    group.command("verify")(verify)
    app.add_typer(group, name="warehouse")


def run(
    hour: Annotated[str | None, typer.Option(help="One hour of received_at; else all that are due.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Export the delivered hours that are new or changed; Dagster's exports_job does it every hour.

    Exit 1 if an hour could not be exported.

    Example: pipeline-platform warehouse run
    """
    from pipeline_platform.warehouse.hours import due_hours, export_hour, require_address
    from pipeline_platform.warehouse.versions import Exported, remove_replaced

    settings = running_settings()
    one = hour_of(hour)
    require_address(settings)
    done: list[Exported] = []
    with database() as conn:
        hours = [one] if one else due_hours(conn, settings)
        if dry_run:
            _print_due(hours, as_json=as_json)
            return
        with progress_bar() as bar:
            for each in bar.track(hours, description="hours"):
                try:
                    done.append(export_hour(conn, settings, each))
                except PipelineError as error:
                    done.append(Exported(each, error=str(error)))
        removed = remove_replaced(conn, settings)
    rows = [asdict(each) for each in done]
    if as_json:
        print_json({"exported": rows, "removed_versions": removed})
    else:
        columns = ("hour", "version", "events", "bytes", "is_new", "address", "error")
        print_rows(rows, columns, title="Exported", empty="nothing to export")
    raise typer.Exit(1 if any(each.error for each in done) else 0)


def _print_due(hours: list[Any], *, as_json: bool) -> None:
    if as_json:
        print_json({"dry_run": True, "hours": hours})
        return
    for each in hours:
        console.print(f"would export {each:%Y-%m-%d %H}:00")
    if not hours:
        console.print("nothing to export")


def list_(hour: Hour = None, as_json: AsJson = False) -> None:
    """The versions of exported hours whose files are there.

    Example: pipeline-platform warehouse list
    """
    from pipeline_platform.warehouse.versions import list_versions

    with database() as conn:
        found = list_versions(conn, hour_of(hour))
    if as_json:
        print_json({"versions": found})
        return
    columns = ("hour", "version", "is_current", "events", "bytes", "published_at", "address")
    print_rows(found, columns, title="Exports", empty="no hour is exported")


def verify(hour: Hour = None, as_json: AsJson = False) -> None:
    """Read the current version of exported hours back and compare it with its record; exit 1 if one differs.

    Example: pipeline-platform warehouse verify
    """
    from pipeline_platform.warehouse.versions import list_versions
    from pipeline_platform.warehouse.versions import verify as verify_version

    rows: list[dict[str, Any]] = []
    with database() as conn:
        for each in list_versions(conn, hour_of(hour)):
            if not each["is_current"]:
                continue
            error = None
            try:
                verify_version(each)
            except PipelineError as wrong:
                error = str(wrong)
            rows.append(each | {"error": error})
    if as_json:
        print_json({"verified": rows})
    else:
        columns = ("hour", "version", "events", "bytes", "address", "error")
        print_rows(rows, columns, title="Verified", empty="no hour is exported")
    raise typer.Exit(1 if any(row["error"] for row in rows) else 0)
