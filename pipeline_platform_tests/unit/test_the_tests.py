"""How the tests are put together: what several of them use is in `support`, and what is random has a seed."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[1]
_OWN = "pipeline_platform_tests."
# The fixtures of one suite that another one has as well, and what the golden requests were written with.
_EXCEPTIONS = {
    ("scenarios/conftest.py", "dagster.conftest"),
    ("unit/test_golden_requests.py", "capture_golden"),
}


def _own_imports(path: Path) -> Iterator[str]:
    """The modules of the tests that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.removeprefix(_OWN) for name in names if name.startswith(_OWN))


def _unseeded(path: Path) -> Iterator[str]:
    """What a file takes from the generator that all of Python shares."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random":
            yield node.attr


def test_all_that_is_random_has_a_seed() -> None:
    found = {path.relative_to(_TESTS).as_posix(): set(_unseeded(path)) for path in _TESTS.rglob("*.py")}
    assert found.pop("conftest.py") == {"Random", "SystemRandom"}
    assert {name: uses for name, uses in found.items() if uses - {"Random"}} == {}


def test_tests_import_from_support_alone() -> None:
    files = {path.relative_to(_TESTS).as_posix(): path for path in _TESTS.rglob("*.py")}
    found = {(name, module) for name, path in files.items() for module in _own_imports(path)}
    assert {(name, module) for name, module in found if module.split(".")[0] != "support"} <= _EXCEPTIONS
    assert len(found) > 200, "the imports were not read"


@pytest.mark.parametrize("line", ["import {}", "from {} import event", "def f():\n    from {} import event"])
def test_an_import_from_a_test_is_found(line: str, tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text(line.format("pipeline_platform_tests.integration.test_worker"))
    assert list(_own_imports(path)) == ["integration.test_worker"]
