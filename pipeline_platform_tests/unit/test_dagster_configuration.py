"""DAGSTER_HOME/dagster.yaml follows the installed version, except in the sections that the user changed."""

from pathlib import Path

import pytest
import yaml

from pipeline_platform.errors import ConfigError
from pipeline_platform.local.instance import configuration
from pipeline_platform.local.instance.configuration import write_configuration

_FIRST = "# ours\nruns:\n  max: 4\nticks:\n  days: 1\nnux:\n  enabled: false\n"
_NEXT = "# ours, newer\nruns:\n  max: 5\nticks:\n  days: 2\nnux:\n  enabled: false\nmore: 1\n"


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The base of an installed version, which the test exchanges."""
    path = tmp_path / "base.yaml"
    path.write_text(_FIRST)
    monkeypatch.setattr(configuration, "BASE", path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "dagster").mkdir()
    return tmp_path / "dagster" / "dagster.yaml"


def test_the_first_start_writes_the_base_and_a_new_version_its_own(base: Path, file: Path) -> None:
    write_configuration(file.parent)
    assert file.read_text() == _FIRST
    base.write_text(_NEXT)
    write_configuration(file.parent)
    assert file.read_text() == _NEXT


def test_what_the_user_changed_is_kept_at_each_start_and_over_versions(base: Path, file: Path) -> None:
    write_configuration(file.parent)
    theirs = "# mine\nruns:\n  max: 9\nticks:\n  days: 1\nown:\n  key: value\n"
    file.write_text(theirs)
    write_configuration(file.parent)
    assert file.read_text() == theirs
    base.write_text(_NEXT)
    for _ in range(2):
        write_configuration(file.parent)
        # Changed, added and removed sections stay; the others are of the new version.
        assert yaml.safe_load(file.read_text()) == {
            "runs": {"max": 9},
            "ticks": {"days": 2},
            "own": {"key": "value"},
            "more": 1,
        }
    assert file.with_name("dagster.yaml.former").exists()


def test_a_file_of_a_version_before_this_rule_is_kept_beside(base: Path, file: Path) -> None:
    file.write_text("old: true\n")
    write_configuration(file.parent)
    assert file.read_text() == _FIRST
    assert file.with_name("dagster.yaml.former").read_text() == "old: true\n"


@pytest.mark.parametrize("text", ["a: [", "- a\n"])
def test_a_file_that_cannot_be_read_is_named(base: Path, file: Path, text: str) -> None:
    write_configuration(file.parent)
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"dagster\.yaml"):
        write_configuration(file.parent)
    assert file.read_text() == text
