"""The command line: parses, calls, prints. Other packages implement the commands.

Exit codes: 0 done, 1 negative answer or failure, 2 wrong usage or configuration.
"""

import functools
import io
import os
import re
import sys
from collections.abc import Callable

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
    imports,
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
    warehouse,
)
from pipeline_platform.cli.failures import end_of
from pipeline_platform.errors import ConfigError

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
    imports,
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
    warehouse,
    mirror,
    cutover,
    demo,
    bench,
):
    room.register(app)


@functools.cache
def command() -> Callable[..., int | None]:
    """The tree of all commands."""
    return typer.main.get_command(app)


def _check_words(words: list[str]) -> None:
    for place, word in enumerate(words, 1):
        if not word.isprintable() and re.search("[\ud800-\udfff]", word):
            raise ConfigError(f"argument {place} is not valid UTF-8; a file can be given as standard input, with -")


def main() -> None:
    """Entry of `pipeline-platform`. An error is printed as a sentence on standard error, never as a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without Unicode shows escapes, and the command does not fail.
            stream.reconfigure(errors="backslashreplace")
    # Only its user can read the files that it writes.
    os.umask(0o077)
    try:
        _check_words(sys.argv[1:])
        code = command()(standalone_mode=False)
        sys.stdout.flush()
    except Exception as error:  # noqa: BLE001 -- the last resort of every command
        code = end_of(error)
    except KeyboardInterrupt as error:
        code = end_of(error)
    sys.exit(code)
