"""The console of every command: whatever is printed is text, never markup, and cannot control the terminal.

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
    """A console whose strings are shown as they are."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Strings of `print`, of tables and of their titles all come through here."""
        plain: dict[str, Any] = {**options, "markup": False, "emoji": False, "highlight": False}
        return super().render_str(visible(text), **plain)

    @contextmanager
    def waiting(self, text: str) -> Generator[Callable[[str], None]]:
        """A spinner with a text that can be changed; nothing where this is no terminal."""
        with self.status(Text(visible(text))) as status:
            yield lambda changed: status.update(Text(visible(changed)))


class Description(ProgressColumn):
    """The description of a task of a progress bar, as plain text."""

    def render(self, task: Task) -> Text:
        return Text(visible(task.description))


def lines(text: str) -> Text:
    """Text with line breaks, which a string printed to the terminal cannot have."""
    return Text(visible_lines(text))


def mark(good: bool, text: str) -> Text:
    """A line that begins with what became of it."""
    return Text.assemble(("✓", "green") if good else ("✗", "red"), " ", visible(text))
