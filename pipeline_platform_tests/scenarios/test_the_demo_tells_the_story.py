"""The whole demo, short: it moves over from a lossy pipeline, and production has every event once."""

import json
from pathlib import Path

import pytest

from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.processes import processes_in

pytestmark = pytest.mark.timeout(900)

# The peak has to outlast what the old pipeline can put off, or it loses nothing.
_SCALE = "0.15"


def test_the_demo_tells_the_story(home: Path) -> None:
    settings = Settings(home=home, dagster_port=0, workers=1)
    done = run_command(settings, "demo", "--seed", "5", "--scale", _SCALE, "--json", dagster_port="0")
    report = done.answer
    assert report == json.loads((home / "demo-report.json").read_text())
    assert (home / "demo-report.html").stat().st_size > 1_000_000, "the charts' library is not inside"
    old, new = report["legacy"], report["platform"]
    assert new["delivered"] == new["accepted"] > 1_000, done.err
    assert new["delivery_rate"] == new["delivery_rate_peak"] == 1.0
    assert old["delivered"] < old["accepted"] <= new["accepted"]
    assert sum(old["losses"].values()) == old["accepted"] - old["delivered"]
    assert report["dropped_found"] == report["recovered"] > 0, done.err
    assert report["missing_after"] == report["doubled"] == 0
    assert report["seed"] == 5
    assert "Dagster" in done.err
    assert not processes_in(home), "it left processes behind"
