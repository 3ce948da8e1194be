"""DAGSTER_HOME/dagster.yaml: our base, merged with what the user changed in it. What the user changed is never lost.

The rule is by section (a key at the top level, such as `concurrency`). A section that the user changed, added or
removed stays as the user left it. All other sections follow the base of the installed version. `up` applies the rule
at each start. The base as it was then is kept beside the file, which tells the user's changes from ours.
"""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from pipeline_platform.errors import ConfigError

_LOG = logging.getLogger(__name__)
BASE = Path(__file__).with_name("dagster.yaml")
_WRITTEN = ".dagster.yaml.base"
_HEADER = """\
# The instance of Dagster. `pipeline-platform up` writes sections that a new version changes, and leaves a section that
# you changed as it is.
"""


def write_configuration(dagster_home: Path) -> None:
    """Bring dagster.yaml in `dagster_home` to the base of this version. ConfigError if the file is not valid YAML."""
    file, written = dagster_home / "dagster.yaml", dagster_home / _WRITTEN
    base = BASE.read_text()
    if not file.exists():
        file.write_text(base)
    elif not written.exists():
        # A version before this rule wrote it at each start.
        former = file.with_name("dagster.yaml.former")
        file.replace(former)
        file.write_text(base)
        _LOG.warning("%s was written anew; the former file is %s", file, former)
    else:
        theirs = _sections(file)
        merged = merge(_sections(BASE), _sections(written), theirs)
        if merged != theirs:
            # Comments of the base are kept, those of the user only in the copy.
            is_base = merged == _sections(BASE)
            shutil.copyfile(file, file.with_name("dagster.yaml.former"))
            file.write_text(base if is_base else _HEADER + yaml.safe_dump(merged, sort_keys=False))
    written.write_text(base)


def merge(base: Mapping[str, Any], written: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The new file. base: of this version; written: of the version that wrote the file; theirs: the file now."""
    kept = {name for name in written.keys() | theirs.keys() if written.get(name) != theirs.get(name)}
    merged = {name: value for name, value in base.items() if name not in kept}
    return merged | {name: theirs[name] for name in theirs if name in kept}


def _sections(file: Path) -> dict[str, Any]:
    try:
        found: object = yaml.safe_load(file.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{file} has no sections: it must map names to values, as {BASE} does")
    return cast("dict[str, Any]", found)
