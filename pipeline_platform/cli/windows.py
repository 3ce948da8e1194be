"""`--from`, `--to`, `--last`: a window of received_at."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from pipeline_platform.cli.since import since_of
from pipeline_platform.errors import ConfigError

From = Annotated[
    str | None, typer.Option("--from", help="Begin of the window of received_at: a time, or how long ago (2h).")
]
To = Annotated[str | None, typer.Option("--to", help="End of the window, exclusive; default: now.")]
Last = Annotated[str | None, typer.Option("--last", help="The window from so long ago (30m, 2h, 3d) to now.")]


def window_of(start: str | None, end: str | None, last: str | None) -> tuple[datetime | None, datetime | None]:
    """Begin and end, None if not given. Raises ConfigError if they are not a valid window."""
    if last and (start or end):
        raise ConfigError("give either --last, or --from and --to")
    begin = since_of(last, "--last") if last else since_of(start, "--from")
    until = since_of(end, "--to")
    if begin and begin >= (until or datetime.now(UTC)):
        raise ConfigError("the window ends before it begins: see --from and --to")
    return begin, until
