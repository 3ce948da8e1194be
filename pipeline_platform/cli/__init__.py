"""The command line: parse, call, print. What a command does lives in the room behind it.

Exit codes: 0 done, 1 the answer is no or something failed, 2 wrong usage or configuration.
"""

import os
import sys

import psycopg
import typer

from pipeline_platform.cli import (
    account,
    alerts,
    archive,
    bench,
    circuit,
    cutover,
    dead_letters,
    demo,
    erasure,
    export,
    history,
    mirror,
    quarantine,
    reconcile,
    recovery,
    replay,
    report,
    running,
    send,
    status,
    tenants,
)
from pipeline_platform.cli.output import log_console
from pipeline_platform.errors import ConfigError, PipelineError

app = typer.Typer(
    name="pipeline-platform",
    help="An event pipeline that accounts for every event.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for room in (
    running,
    tenants,
    send,
    history,
    account,
    report,
    status,
    alerts,
    dead_letters,
    circuit,
    quarantine,
    reconcile,
    recovery,
    replay,
    erasure,
    archive,
    export,
    mirror,
    cutover,
    demo,
    bench,
):
    room.register(app)


def main() -> None:
    """Entry of `pipeline-platform`: an expected error is one line on standard error, never a traceback."""
    # What it writes is its user's alone.
    os.umask(0o077)
    try:
        app()
    except ConfigError as error:
        _fail(str(error), 2)
    except PipelineError as error:
        _fail(str(error), 1)
    except psycopg.OperationalError as error:
        _fail(
            f"PostgreSQL does not answer: {str(error).strip()}. Does the platform run? See: pipeline-platform status", 1
        )


def _fail(message: str, code: int) -> None:
    log_console.print(f"pipeline-platform: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(code)
