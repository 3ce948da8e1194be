"""export: a tenant's events of a window, as a file."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from pipeline_platform.account.funnel import tenant_id_of
from pipeline_platform.analytics.export import By, Window
from pipeline_platform.analytics.export import export as export_rows
from pipeline_platform.analytics.formats import Format, open_writer
from pipeline_platform.cli.output import AsJson, database, log_console, print_json, progress_bar
from pipeline_platform.cli.values import time_of
from pipeline_platform.errors import ConfigError


def register(app: typer.Typer) -> None:
    app.command()(export)


def export(
    tenant: Annotated[str, typer.Option(help="Whose events.")],
    from_: Annotated[str, typer.Option("--from", help="Begin of the window (ISO 8601, UTC where it has no zone).")],
    to: Annotated[str, typer.Option(help="End of the window; what happens at that very moment is in the next one.")],
    by: Annotated[
        By, typer.Option(help="Which time decides: when it occurred, as in the roll-ups, or when it was received.")
    ] = By.OCCURRED,
    format_: Annotated[Format, typer.Option("--format", help="What the file looks like.")] = Format.NDJSON,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; else standard output.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a tenant's delivered events of a window: one snapshot, streamed, every value as it is.

    Example: pipeline-platform export --tenant acme --from 2026-01-31T14:00 --to 2026-01-31T16:00 -o acme.ndjson
    """
    start, end = _time(from_, "--from"), _time(to, "--to")
    if output is None and format_ is Format.PARQUET:
        raise ConfigError("a Parquet file cannot be written to standard output: give -o FILE")
    if output is None and as_json:
        raise ConfigError("--json says what was written, and standard output has the events: give -o FILE")
    with database() as conn:
        window = Window(tenant_id_of(conn, tenant), start, end, by)
        with _file(output) as out, progress_bar() as bar:
            task = bar.add_task(f"events of {tenant}", total=None)
            writer = open_writer(format_, out)
            events = export_rows(conn, window, writer, lambda done, of: bar.update(task, completed=done, total=of))
            writer.close()
    if as_json and output:
        print_json(
            {
                "tenant": tenant,
                "from": start,
                "to": end,
                "by": by.value,
                "events": events,
                "file": str(output),
                "bytes": output.stat().st_size,
            }
        )
    else:
        log_console.print(f"exported {events:,} events of {tenant} to {output or 'standard output'}", highlight=False)


def _time(text: str, option: str) -> datetime:
    return time_of(text, option, "no time; write it as 2026-01-31T14:00 (UTC) or 2026-01-31T14:00+02:00")


@contextmanager
def _file(path: Path | None) -> Generator[BinaryIO]:
    """Standard output, or a file that appears only when it is complete."""
    if path is None:
        yield sys.stdout.buffer
        return
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is not a file, so it cannot be replaced")
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        out = unfinished.open("wb")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    try:
        with out:
            yield out
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
