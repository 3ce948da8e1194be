"""Markdown summaries: tables, and links to more. Numbers to plot are separate metadata."""

from collections.abc import Iterable, Sequence

from pipeline_platform.local.services.endpoints import read_endpoints
from pipeline_platform.settings import Settings

Cell = str | int | float | None


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table with numbers aligned right and with separators. A cell's content cannot end the cell."""
    body = [list(row) for row in rows]
    right = [all(isinstance(row[place], int | float) for row in body) for place in range(len(columns))]
    lines = [list(columns), ["--:" if is_right else "---" for is_right in right], *body]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def look_further(settings: Settings, page: str) -> str:
    """The last line of a summary: links to the live page, if one runs, and to the page of the documentation."""
    running = read_endpoints(settings.home)
    console = f"[Console]({running.console}) · " if running and running.console else ""
    return f"{console}What to do: `docs/how-to/{page}.md`"


def _cell(value: Cell) -> str:
    if isinstance(value, int | float):
        return f"{value:,}"
    return " ".join((value or "").split()).replace("|", "\\|")
