"""The live view on standard error: the current act, its progress, and both pipelines side by side.

If standard error is not a terminal, it prints the same as lines, one every few seconds.
"""

import threading
import time
from collections import deque
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live as LiveDisplay
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline_platform.db import connect
from pipeline_platform.lab.demo import figures
from pipeline_platform.lab.demo.playing import Playing
from pipeline_platform.telemetry.terminal import ticked

_SAMPLE_S = 0.5
_LINE_EVERY_S = 10.0
_RATE_OVER = 6  # samples


class Screen:
    """Shows the progress while the context is open. A separate thread reads the counters."""

    def __init__(self, console: Console, database_url: str, acts: int) -> None:
        self._console = console
        self._database_url = database_url
        self._acts = acts
        self._act = (0, "starting")
        self._playing: tuple[Playing, int] | None = None
        self._samples: deque[tuple[float, figures.Live]] = deque(maxlen=_RATE_OVER)
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._display = LiveDisplay(
            console=console, get_renderable=self._picture, refresh_per_second=4, transient=True, redirect_stdout=False
        )

    def __enter__(self) -> Self:
        self._sampler.start()
        if self._console.is_terminal:
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._display.stop()
        self._over.set()
        self._sampler.join()

    def act(self, number: int, title: str) -> None:
        """Show the next act."""
        self._act = (number, title)
        self._console.print(Text.assemble((f"{number}/{self._acts}", "bold"), " ", title), soft_wrap=True)

    def say(self, text: str, *, good: bool = True) -> None:
        """Print one action or result."""
        self._console.print(Text("    ") + ticked(good, text), soft_wrap=True)

    def follow(self, playing: Playing | None, events: int = 0) -> None:
        """Show the progress of this traffic of about `events` events; None: no traffic."""
        self._playing = (playing, events) if playing else None

    def _sample(self) -> None:
        said_at = time.monotonic()
        with connect(self._database_url, "demo screen") as conn:
            while not self._over.wait(_SAMPLE_S):
                self._samples.append((time.monotonic(), figures.live(conn)))
                if not self._console.is_terminal and time.monotonic() > said_at + _LINE_EVERY_S and self._playing:
                    said_at = time.monotonic()
                    self._console.print(self._line(), highlight=False, soft_wrap=True)

    def _rates(self) -> tuple[float, float, float]:
        """Events a second over the last samples: accepted, delivered by the platform, written by the old one."""
        if len(self._samples) < 2:
            return 0.0, 0.0, 0.0
        (begin, first), (end, last) = self._samples[0], self._samples[-1]
        seconds = end - begin
        return (
            (last.accepted - first.accepted) / seconds,
            (last.delivered - first.delivered) / seconds,
            (last.written - first.written) / seconds,
        )

    def _newest(self) -> figures.Live:
        return self._samples[-1][1] if self._samples else figures.Live()

    def _line(self) -> str:
        now = self._newest()
        accepted, delivered, written = self._rates()
        return (
            f"    {accepted:,.0f} events/s: platform {now.delivered:,} of {now.accepted:,} ({delivered:,.0f}/s), "
            f"old pipeline {now.written:,} of {now.offered:,} ({written:,.0f}/s), lost {now.lost:,}"
        )

    def _picture(self) -> RenderableType:
        number, title = self._act
        now = self._newest()
        _, delivered, written = self._rates()
        table = Table("", "accepted", "delivered", "lost", "now", box=SIMPLE_HEAD, title_justify="left")
        for column in table.columns[1:]:
            column.justify, column.min_width = "right", 10
        table.add_row(Text("platform", "blue"), *_cells(now.accepted, now.delivered, now.dead_lettered, delivered))
        table.add_row(Text("old pipeline", "dark_orange"), *_cells(now.offered, now.written, now.lost, written))
        parts: list[RenderableType] = [Text(f"{number}/{self._acts} {title}", style="bold"), table]
        if self._playing:
            playing, events = self._playing
            parts.insert(1, ProgressBar(total=max(1, events), completed=playing.sent, width=60))
        return Group(*parts)


def _cells(accepted: int, delivered: int, lost: int, rate: float) -> tuple[str, str, Text, str]:
    return f"{accepted:,}", f"{delivered:,}", Text(f"{lost:,}", "red" if lost else ""), f"{rate:,.0f}/s"
