"""Markdown for people: tables, and where to look further. Numbers stand beside it as metadata of their own, to plot."""

from collections.abc import Iterable, Sequence

from pipeline_platform.local.services.endpoints import read_endpoints
from pipeline_platform.settings import Settings

Cell = str | int | float | None


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table; numbers to the right, with separators. Nothing in a cell can end it."""
    body = [list(row) for row in rows]
    right = [all(isinstance(row[place], int | float) for row in body) for place in range(len(columns))]
    lines = [list(columns), ["--:" if is_right else "---" for is_right in right], *body]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def look_further(settings: Settings, page: str) -> str:
    """The last line of a summary: the live page, where one runs, and the page of the documentation."""
    running = read_endpoints(settings.home)
    console = f"[Console]({running.console}) · " if running and running.console else ""
    return f"{console}What to do: `docs/how-to/{page}.md`"


def _cell(value: Cell) -> str:
    if isinstance(value, int | float):
        return f"{value:,}"
    return " ".join((value or "").split()).replace("|", "\\|")
