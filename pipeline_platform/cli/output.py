"""Output of all commands: answers on standard output, everything else on standard error."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Annotated, Any

import psycopg
import typer
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from pipeline_platform.db import connect
from pipeline_platform.local.services.endpoints import connected
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.terminal import Description, Terminal

# The width of tables if standard output is not a terminal.
_WIDE = 140
console = Terminal(width=None if sys.stdout.isatty() else _WIDE)
log_console = Terminal(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Limit = Annotated[int, typer.Option(min=1, max=1_000_000, help="Rows at most.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and change nothing.")]


def running_settings() -> Settings:
    """The settings with the servers of the running platform. ConfigError if none runs."""
    return connected(Settings.read())


def database() -> AbstractContextManager[psycopg.Connection[Any]]:
    """A connection to the running platform's database."""
    return connect(running_settings().database_url, "cli", statement_timeout_s=0)


def print_json(answer: Mapping[str, Any]) -> None:
    """Print one object, times in ISO 8601."""
    typer.echo(json.dumps(answer, default=_plain))


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, title: str, empty: str) -> None:
    """Print a table of some columns of the rows, or the text `empty` if there are no rows."""
    table = Table(*columns, title=title, title_justify="left", box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in columns))
    console.print(table if table.row_count else empty)


def progress_bar() -> Progress:
    """A progress bar on standard error, removed when done."""
    return Progress(
        Description(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=log_console,
        transient=True,
    )
