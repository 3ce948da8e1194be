"""The console of every command: output is shown as text, never as markup, and cannot control the terminal.

A string is one line. Text of several lines is printed as `lines(text)`, styles as `rich.text.Text`.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import ProgressColumn, Task
from rich.text import Text

from pipeline_platform.telemetry.visible import visible, visible_lines


class Terminal(Console):
    """A console that shows strings unchanged."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Render the strings of `print`, of tables and of their titles."""
        plain: dict[str, Any] = {**options, "markup": False, "emoji": False, "highlight": False}
        return super().render_str(visible(text), **plain)

    @contextmanager
    def waiting(self, text: str) -> Generator[Callable[[str], None]]:
        """A spinner with a text that can be changed; shows nothing if the output is not a terminal."""
        with self.status(Text(visible(text))) as status:
            yield lambda changed: status.update(Text(visible(changed)))


class Description(ProgressColumn):
    """The description of a task of a progress bar, as plain text."""

    def render(self, task: Task) -> Text:
        return Text(visible(task.description))


def lines(text: str) -> Text:
    """Text with line breaks; a printed string cannot have any."""
    return Text(visible_lines(text))


def ticked(good: bool, text: str) -> Text:
    """A line that begins with ✓ or ✗."""
    return Text.assemble(("✓", "green") if good else ("✗", "red"), " ", visible(text))
