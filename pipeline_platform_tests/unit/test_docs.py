"""The words are held to the code: links lead somewhere, commands exist, tables, codes and files are named."""

import ast
import functools
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.core import TyperGroup

_ROOT = Path(__file__).parent.parent.parent
_PAGES = sorted([*_ROOT.glob("*.md"), *_ROOT.glob("docs/**/*.md")])
_CODE = sorted(_ROOT.glob("pipeline_platform/**/*.py"))

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"pipeline-platform((?: +(?:[a-z][a-z-]*|--[a-z-]+))+)")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`[^`\n]+`")
# Praise is the reader's, and a path of one machine is nobody else's.
_FORBIDDEN = re.compile(
    r"\b(amazing|battle-tested|best-in-class|blazing\w*|cutting-edge|effortless\w*|enterprise-grade|incredibl\w+"
    r"|just works|lightning|powerful|revolutionary|robust\w*|seamless\w*|simply|state-of-the-art|unparalleled"
    r"|world-class|TODO|FIXME)\b|(?<![\w.}])/(?:work|root|home)/",
    re.IGNORECASE,
)


def _name(path: Path) -> str:
    return str(path.relative_to(_ROOT))


@pytest.mark.parametrize("page", _PAGES, ids=_name)
def test_internal_links_lead_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text())
    for target in _LINK.findall(text):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        linked = page.parent / path if path else page
        assert linked.exists(), f"{_name(page)} links to {target}, which is not there"
        if anchor:
            assert anchor in _anchors(linked), f"{_name(page)} links to {target}: no such heading"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", _PAGES, ids=_name)
def test_commands_in_pages_exist(page: Path) -> None:
    text = page.read_text()
    for snippet in [*_FENCE.findall(text), *_INLINE.findall(_FENCE.sub("", text))]:
        for found in _COMMAND.finditer(snippet):
            _assert_command(found[1].split(), _name(page))


@pytest.mark.parametrize("module", _CODE, ids=_name)
def test_commands_in_messages_exist(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for found in _COMMAND.finditer(node.value):
                _assert_command(found[1].split(), _name(module), prose=True)


@functools.cache
def _cli() -> Any:
    return typer.main.get_command(importlib.import_module("pipeline_platform.cli").app)


def _assert_command(words: list[str], where: str, *, prose: bool = False) -> None:
    """Follow the words through the groups; what comes after the command are its options or, in prose, other words."""
    command = _cli()
    for word in words:
        if word.startswith("--"):
            options = {
                option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
            }
            assert word in {*options, "--help"}, f"{where}: {' '.join(words)}: no option {word}"
        elif isinstance(command, TyperGroup):
            assert word in command.commands, f"{where}: there is no command pipeline-platform {' '.join(words)}"
            command = command.commands[word]
        elif prose:
            return


@pytest.mark.parametrize("page", _PAGES, ids=_name)
def test_pages_are_plain(page: Path) -> None:
    found = _FORBIDDEN.search(page.read_text())
    assert not found, f"{_name(page)} says {found[0]!r}"


def test_every_table_view_and_function_is_in_the_schema_reference() -> None:
    reference = (_ROOT / "docs/reference/schema.md").read_text()
    kinds = "TABLE|VIEW|FUNCTION|SEQUENCE|TYPE"
    made = re.compile(rf"^CREATE (?:OR REPLACE )?(?:{kinds}) ([a-z]+\.[a-z_]+)(?!\w* PARTITION)", re.MULTILINE)
    for name in made.findall((_ROOT / "sql/schema.sql").read_text()):
        if name != "analytics.keys_":
            assert name in reference, f"docs/reference/schema.md does not name {name}"


def test_every_code_of_the_gateway_is_in_the_protocol_reference() -> None:
    reference = (_ROOT / "docs/reference/protocol.md").read_text()
    for module, code in _codes():
        assert f"`{code}`" in reference, (
            f"{_name(module)} answers {code}, which docs/reference/protocol.md does not name"
        )


def _codes() -> Iterator[tuple[Path, str]]:
    """What the gateway says, by the calls that say it: their first argument that looks like a code."""
    judges = [path for path in _CODE if path.parent.name == "gateway" or path.name in _JUDGES]
    for module in judges:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and _callee(node) in _RAISERS:
                for argument in node.args[:3]:
                    text = argument.value if isinstance(argument, ast.Constant) else None
                    if isinstance(text, str) and re.fullmatch("[a-z0-9_]+", text):
                        yield module, text
                        break


def _callee(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


_JUDGES = ("reader.py", "json_limits.py")
_RAISERS = {"RequestRefusedError", "TryLaterError", "InvalidEventError", "RejectedEvent", "_refused", "refusal"}


def test_the_map_names_every_module_of_the_route() -> None:
    import pipeline_platform

    the_map = pipeline_platform.__doc__ or ""
    rooms = ("gateway", "queue", "worker", "dead_letters")
    for module in _CODE:
        if module.parent.name in rooms and module.name not in ("__init__.py", "__main__.py"):
            assert module.name in the_map, f"{_name(module)} is not in the map, the docstring of pipeline_platform"


def test_decisions_are_numbered_and_short() -> None:
    pages = sorted((_ROOT / "docs/decisions").glob("*.md"))
    for number, page in enumerate(pages, start=1):
        assert page.name.startswith(f"{number:04d}-"), f"{_name(page)} should be number {number}"
        assert page.read_text().startswith(f"# {number}. "), f"{_name(page)} should begin with its number"
        assert len(page.read_text().split()) <= 450, f"{_name(page)} is longer than half a page"
