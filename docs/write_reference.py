"""Writes docs/reference/commands.md, settings.md and metrics.md from the code: `python docs/write_reference.py`.

A test compares the pages with what this would write, so that no command, setting or metric goes undocumented.
"""

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer.main
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from pipeline_platform.cli import app
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.metrics.catalogue import METRICS, STAGES, Metric, Source

REFERENCE = Path(__file__).parent / "reference"
_HEAD = "<!-- Written by docs/write_reference.py: change the code instead. -->\n"


def pages() -> dict[str, str]:
    """The generated pages by file name."""
    return {"commands.md": _commands(), "settings.md": _settings(), "metrics.md": _metrics()}


def all_commands() -> Iterator[tuple[str, TyperCommand]]:
    """Every command with its full name, as it is typed."""
    yield from _commands_of("pipeline-platform", typer.main.get_command(app))


def _commands_of(name: str, command: Any) -> Iterator[tuple[str, TyperCommand]]:
    if not isinstance(command, TyperGroup):
        yield name, command
        return
    for part in command.commands.values():
        yield from _commands_of(f"{name} {part.name}", part)


def _commands() -> str:
    parts = [
        _HEAD,
        "# Commands\n",
        "Every command has `--help`; every command that reads has `--json`: one object on standard output, everything "
        "else on standard error. Exit codes: 0 done, 1 the answer is no (or something failed), 2 wrong usage or "
        "configuration.\n",
        "Where the servers are: `PIPELINE_DATABASE_URL` and `PIPELINE_REDIS_URL`, else what `pipeline-platform up` "
        "wrote into `endpoints.json` in the [home](../glossary.md). [Settings](settings.md) are environment "
        "variables.\n",
    ]
    return "\n".join([*parts, *(_command(name, command) for name, command in all_commands())])


def _command(name: str, command: Any) -> str:
    text = re.sub(r"[ \n]+", " ", command.help or "").strip()
    about, _, example = text.partition("Example: ")
    given = [parameter for parameter in command.params if "--help" not in parameter.opts]
    usage = " ".join([name, *(_usage(parameter) for parameter in given)])
    rows = [f"| `{_flag(parameter)}` | {_meaning(parameter)} |" for parameter in given]
    table = ["\n| | |", "|---|---|", *rows] if rows else []
    return "\n".join([f"## `{name}`\n", about.strip(), f"\n```sh\n{usage}\n```", *table, f"\nExample: `{example}`\n"])


def _usage(parameter: TyperArgument | TyperOption) -> str:
    if isinstance(parameter, TyperArgument):
        word = (parameter.name or "").upper().rstrip("_") + ("..." if parameter.nargs == -1 else "")
    else:
        word = _flag(parameter)
    return word if parameter.required else f"[{word}]"


def _flag(parameter: TyperArgument | TyperOption) -> str:
    if isinstance(parameter, TyperArgument):
        return (parameter.name or "").upper().rstrip("_")
    flag = "/".join([*parameter.opts, *parameter.secondary_opts])
    is_switch = parameter.is_flag
    return flag if is_switch else f"{flag} {(parameter.name or '').upper()}"


def _meaning(parameter: TyperArgument | TyperOption) -> str:
    help_text = getattr(parameter, "help", None) or ""
    default: Any = parameter.default
    if isinstance(default, Enum):
        default = default.value
    if default is None or default == "" or isinstance(default, bool) or callable(default):
        return help_text
    return f"{help_text} Default: {default}."


def _settings() -> str:
    rows = [
        f"| `PIPELINE_{name.upper()}` | {_default(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(
        [
            _HEAD,
            "# Settings\n",
            "Environment variables, read once when a process starts; all that are wrong are named at once (exit 2). "
            "`PIPELINE_HOME` is relative to the working directory. Names end in their unit (`_s`, `_ms`, `_h`), sizes "
            "are bytes, `_max` is a limit.\n",
            "| variable | default | |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _default(value: Any) -> str:
    if value == "":
        return "empty"
    if isinstance(value, dict):
        return "`{" + ", ".join(f'"{key}": {part}' for key, part in value.items()) + "}`"
    return f"`{value}`"


def _metrics() -> str:
    head = [
        _HEAD,
        "# Metrics\n",
        "In base units; what ends in `_total` only grows. [How to scrape them](../how-to/watch-with-prometheus.md).\n",
        f"Stages are {', '.join(f'`{stage}`' for stage in STAGES)}. Lanes, states and other labels are the words of "
        "[the glossary](../glossary.md).\n",
    ]
    rooms = {
        Source.DATABASE: "## What PostgreSQL knows\n\nServed by the console, from one snapshot a scrape.\n",
        Source.PROCESSES: "## What the processes count\n\nServed by each gateway, for all processes of its home. A "
        "process that is started again goes on counting.\n",
    }
    for source, title in rooms.items():
        rows = [_metric(metric) for metric in METRICS if metric.source is source]
        head += [title, "| metric | kind | labels | |", "|---|---|---|---|", *rows, ""]
    return "\n".join(head)


def _metric(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    bounds = f" Bounds: {', '.join(f'{bound:g}' for bound in metric.bounds)}." if metric.bounds else ""
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.about}{bounds} |"


if __name__ == "__main__":
    for name, text in pages().items():
        (REFERENCE / name).write_text(text)
