"""The common parts of all pages: the frame with its colours and its library, tiles, charts, table rows."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from plotly.io import to_html  # pyright: ignore[reportUnknownVariableType]
from plotly.offline import get_plotlyjs

# Readable on white and on dark grey, for both colour schemes.
OLD, NEW, GREY = "#e0763b", "#3f8be0", "#8a94a1"

Figure = dict[str, Any]


def write_page(path: Path, title: str, body: str, parts: Mapping[str, str]) -> None:
    """Replace the file atomically. parts: HTML, by their names in `body`."""
    frame = Template((Path(__file__).parent / "frame.html").read_text())
    page = frame.substitute(title=html.escape(title), library=get_plotlyjs(), body=Template(body).substitute(parts))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".html.new")
    unfinished.write_text(page)
    unfinished.replace(path)


def tile(kind: str, figure: str, text: str) -> str:
    """A large figure and what it counts. kind: old, new, good or bad."""
    return f'<div class="card"><div class="tile {kind}">{figure}</div><p>{html.escape(text)}</p></div>'


def row(cells: Sequence[str], numbers_from: int | None = None) -> str:
    """A table row. Cells from `numbers_from` on are formatted as numbers."""
    first = len(cells) if numbers_from is None else numbers_from
    parts = (
        f"<td>{html.escape(cell)}</td>" if place < first else f'<td class="number">{html.escape(cell)}</td>'
        for place, cell in enumerate(cells)
    )
    return "<tr>" + "".join(parts) + "</tr>"


def chart(figure: Figure, height: int) -> str:
    """A chart, `height` pixels high and as wide as the page."""
    layout: Figure = {
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 28, "b": 28},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "legend": {"orientation": "h", "y": 1.12, "x": 0},
        "hovermode": "closest",
        **figure["layout"],
    }
    return to_html(
        {"data": figure["data"], "layout": layout},
        config={"displaylogo": False, "displayModeBar": False, "responsive": True},
        include_plotlyjs=False,
        full_html=False,
        default_height=f"{height}px",
    )
