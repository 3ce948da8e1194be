"""The common parts of all pages: the frame with its colours and its library, and charts. Templates escape values."""

from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.io import to_html  # pyright: ignore[reportUnknownVariableType]
from plotly.offline import get_plotlyjs

from pipeline_platform import stores

# Readable on white and on dark grey, for both colour schemes.
OLD, NEW, GREY = "#e0763b", "#3f8be0", "#8a94a1"

Figure = dict[str, Any]


class Tile(NamedTuple):
    """A large figure and what it counts. kind: old, new, good or bad."""

    kind: str
    figure: str
    text: str


def write_page(address: str, template: Path, **values: Any) -> None:
    """Replace the file at once. template: extends frame.html. values: `title`, and what the template names."""
    page = _environment(template.parent).get_template(template.name)
    stores.write_whole(address, page.render(values, library=_trusted(get_plotlyjs())).encode())


def _environment(own: Path) -> Environment:
    return Environment(
        loader=FileSystemLoader([own, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _trusted(html: str) -> Markup:
    return Markup(html)  # noqa: S704 -- made by plotly, which escapes what is in a figure


def chart(figure: Figure, height: int) -> Markup:
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
    html = to_html(
        {"data": figure["data"], "layout": layout},
        config={"displaylogo": False, "displayModeBar": False, "responsive": True},
        include_plotlyjs=False,
        full_html=False,
        default_height=f"{height}px",
    )
    return _trusted(html)
