"""Every command and every setting is documented, and the pages say what the code does."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from typer.core import TyperCommand
from typer.testing import CliRunner

from pipeline_platform.cli import app
from pipeline_platform.settings import Settings

_ROOT = Path(__file__).parent.parent.parent
_READING = {
    "archive run", "archive list", "archive verify", "archive restore", "bench", "funnel", "audit",
    "trace", "status", "doctor", "objectives", "alerts list", "alerts show", "alerts test",
    "send", "import", "tenant add", "tenant list",
    "key create", "key list", "key rotate", "dead-letters list", "dead-letters show", "dead-letters redrive",
    "dead-letters discard", "quarantine list", "quarantine show", "quarantine readmit", "reconcile", "recover",
    "erase", "export", "report", "demo", "circuit status", "replay plan", "replay diff", "replay commit", "replay undo",
    "replay show", "replay list", "mirror show", "cutover status", "cutover to", "cutover back",
    "warehouse run", "warehouse list", "warehouse verify", "mirror acknowledge",
}  # fmt: skip


def _writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_reference", _ROOT / "docs/write_reference.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_WRITER = _writer()
_COMMANDS: dict[str, TyperCommand] = {
    name.removeprefix("pipeline-platform "): command for name, command in _WRITER.all_commands()
}


@pytest.mark.parametrize("name", ["commands.md", "settings.md", "metrics.md"])
def test_the_reference_is_what_the_code_says(name: str) -> None:
    written = (_ROOT / "docs/reference" / name).read_text()
    assert written == _WRITER.pages()[name], "run: python docs/write_reference.py"


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    shown = CliRunner().invoke(app, [*name.split(), "--help"])
    assert shown.exit_code == 0
    words = r"\s+".join(["pipeline-platform", *name.split()])
    assert re.search(rf"Example:\s.*?{words}\b", shown.output, re.DOTALL)


def test_every_command_that_reads_answers_in_json() -> None:
    with_json = {
        name for name, command in _COMMANDS.items() if any("--json" in parameter.opts for parameter in command.params)
    }
    assert with_json == _READING


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_option_says_what_it_is_for(name: str) -> None:
    for parameter in _COMMANDS[name].params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help"


def test_every_setting_has_a_description() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
