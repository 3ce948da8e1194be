"""The manifests in docs/kubernetes are valid: they are not run by any test."""

from pathlib import Path

import kubernetes_validate
import pytest
import yaml

_DIRECTORY = Path(__file__).parents[2] / "docs/kubernetes"
_DOCUMENTS = [*yaml.safe_load_all((_DIRECTORY / "celery-workers.yaml").read_text())]


@pytest.mark.parametrize("document", _DOCUMENTS, ids=[each["kind"] for each in _DOCUMENTS])
def test_a_manifest_is_valid(document: dict[str, object]) -> None:
    kubernetes_validate.validate(document, "1.34", strict=True)


def test_the_values_name_the_launcher_of_the_instance() -> None:
    values = yaml.safe_load((_DIRECTORY / "values.yaml").read_text())
    instance = yaml.safe_load(_DOCUMENTS[0]["data"]["dagster.yaml"])
    launcher = values["runLauncher"]["config"]["customRunLauncher"]
    assert {name: launcher[name] for name in ("module", "class")} == instance["run_launcher"]
