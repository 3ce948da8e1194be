"""Every command of the command line with the words that it needs, found by walking its tree; run in this process."""

import io
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from pipeline_platform.cli import command, main


@dataclass(frozen=True, slots=True)
class Parameter:
    """An option or argument. option: None for an argument; is_number, is_path: what it takes."""

    option: str | None
    is_required: bool
    is_flag: bool
    is_number: bool
    is_path: bool
    name: str

    def words(self, value: str) -> list[str]:
        return [value] if self.option is None else [f"{self.option}={value}"]


@dataclass(frozen=True, slots=True)
class Command:
    """A command by its path, such as ("tenant", "add")."""

    path: tuple[str, ...]
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended that ran in this process."""

    words: tuple[str, ...]
    code: int
    said: str


def all_commands() -> Iterator[Command]:
    """Leaves of the tree."""
    yield from _leaves((), command())


def _leaves(path: tuple[str, ...], command: Any) -> Iterator[Command]:
    inner: dict[str, Any] = getattr(command, "commands", {})
    for name, child in inner.items():
        yield from _leaves((*path, name), child)
    if not inner:
        yield Command(path, tuple(_parameter(each) for each in command.params if each.name != "help"))


def _parameter(found: Any) -> Parameter:
    kind = str(found.type_descriptor.annotation)
    is_argument = found.param_type_name == "argument"
    return Parameter(
        option=None if is_argument else max(found.opts, key=len),
        is_required=found.required,
        is_flag=getattr(found, "is_flag", False),
        is_number="'int'" in kind or "'float'" in kind or "[int]" in kind,
        is_path="Path" in kind or found.name == "file",
        name=found.name,
    )


def run_here(*words: str) -> Ended:
    """`pipeline-platform WORDS` with the environment of this process, its outputs captured."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    code = 0
    with patch.object(sys, "argv", ["pipeline-platform", *words]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    for stream in (out, err):
        stream.flush()
    said = b"".join(stream.buffer.getvalue() for stream in (out, err))  # pyright: ignore[reportAttributeAccessIssue]
    return Ended(words, code, said.decode())
