"""The rules and the dashboard are held to the catalogue, to the runbooks and to promtool."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline_platform.telemetry.metrics.catalogue import METRICS

_ROOT = Path(__file__).parents[2]
_PROMETHEUS = _ROOT / "observability/prometheus"
_DASHBOARD: dict[str, Any] = json.loads((_ROOT / "observability/grafana/pipeline.json").read_text())
_GROUPS = yaml.safe_load((_PROMETHEUS / "pipeline.rules.yml").read_text())["groups"]
_RULES: list[dict[str, Any]] = [rule for group in _GROUPS for rule in group["rules"]]
_ALERTS = [rule for rule in _RULES if "alert" in rule]
_RECORDED = {rule["record"] for rule in _RULES if "record" in rule}
_SERIES = {series: metric for metric in METRICS for series in metric.series}

# A name that a selector or an operator can follow, and the labels it is asked for.
_NAME = re.compile(r"(?<![\w:$])((?:\w+:)?pipeline[a-z_:0-9]*\w)(?:\{([^}]*)\})?")
_PANELS = {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in _DASHBOARD["panels"]}
_EXPRESSIONS = {
    **{rule.get("alert") or rule["record"]: [rule["expr"]] for rule in _RULES},
    **_PANELS,
    "tenant": [
        variable["query"]["query"] for variable in _DASHBOARD["templating"]["list"] if variable["name"] == "tenant"
    ],
}


@pytest.mark.parametrize("where", _EXPRESSIONS)
def test_every_metric_and_label_is_in_the_catalogue(where: str) -> None:
    found = [name for expression in _EXPRESSIONS[where] for name in _NAME.findall(expression)]
    assert found, f"{where} reads no metric"
    for name, labels in found:
        if name in _RECORDED:
            continue
        assert name in _SERIES, f"{where} reads {name}, which the catalogue does not have"
        asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", labels))
        assert asked <= {*_SERIES[name].labels, "le"}, f"{where} asks {name} for {asked}"


def test_every_metric_is_shown_or_watched() -> None:
    read = {name for expressions in _EXPRESSIONS.values() for text in expressions for name, _ in _NAME.findall(text)}
    unseen = [metric.name for metric in METRICS if not read & set(metric.series)]
    assert unseen == ["pipeline_queue_work", "pipeline_cutover_epoch"]


def test_bounds_that_rules_ask_for_are_bounds_of_the_histogram() -> None:
    for expressions in _EXPRESSIONS.values():
        for name, labels in (found for text in expressions for found in _NAME.findall(text)):
            for bound in re.findall(r'le="([\d.]+)"', labels):
                assert float(bound) in _SERIES[name].bounds


@pytest.mark.parametrize("rule", _ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_names_its_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    page = rule["annotations"]["runbook"]
    assert re.fullmatch(r"docs/runbooks/[a-z_]+\.md", page)
    if (_ROOT / "docs/runbooks").is_dir():
        assert (_ROOT / page).exists(), f"{rule['alert']} leads to {page}, which is not there"


def test_every_alert_is_tested_with_its_cause_and_without() -> None:
    tests = yaml.safe_load((_PROMETHEUS / "pipeline.rules.test.yml").read_text())["tests"]
    judged = [(one["alertname"], bool(one["exp_alerts"])) for test in tests for one in test["alert_rule_test"]]
    for rule in _ALERTS:
        assert {(rule["alert"], True), (rule["alert"], False)} <= set(judged), rule["alert"]


@pytest.mark.parametrize(
    "command",
    ["check rules pipeline.rules.yml", "test rules pipeline.rules.test.yml", "check config prometheus.yml"],
)
def test_promtool(command: str) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: prometheus): the rules were NOT tested")
    done = subprocess.run(["promtool", *command.split()], cwd=_PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_reads_every_panel(tmp_path: Path) -> None:
    """As rules, with the dashboard's variables given."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: prometheus): the dashboard was NOT tested")
    texts = [text for expressions in _PANELS.values() for text in expressions]
    given = [text.replace("$tenant", ".*").replace("$__rate_interval", "1m") for text in texts]
    rules = [{"record": f"panel:{place}", "expr": text} for place, text in enumerate(given)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_have_ids_and_places_of_their_own() -> None:
    ids = [panel["id"] for panel in _DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in _DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
