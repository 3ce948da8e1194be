"""What scenarios share: one line each about what they found, shown when all are done."""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline_platform.settings import Settings
from pipeline_platform_tests.dagster.conftest import instance, instance_template  # noqa: F401 -- fixtures
from pipeline_platform_tests.support.ledger import Report, Verdict
from pipeline_platform_tests.support.servers import OwnServer, fresh_database, own_postgres

_REPORT = "scenario"
_counter = itertools.count(1)


@pytest.fixture(scope="session")
def mortal_postgres() -> Iterator[OwnServer]:
    """A PostgreSQL that tests may kill; it runs again when they end."""
    with tempfile.TemporaryDirectory(prefix="pipeline-test-", ignore_cleanup_errors=True) as home:
        server = own_postgres(Path(home))
        yield server
        server.stop()


@pytest.fixture
def mortal_settings(mortal_postgres: OwnServer, redis_url: str, home: Path) -> Settings:
    """Settings with a fresh database on it."""
    url = fresh_database(mortal_postgres, f"scenario_{next(_counter)}")
    return Settings(home=home, database_url=url, redis_url=redis_url)


@pytest.fixture
def report(request: pytest.FixtureRequest, record_property: Callable[[str, object], None], seed: int) -> Report:
    """Judge a verdict: one line in the summary, and a failure that names the seed where anything is wrong."""

    def say(verdict: Verdict, recovered_s: float | None = None) -> None:
        recovered = "-" if recovered_s is None else f"{recovered_s:.2f}"
        line = (
            f"acknowledged {verdict.acknowledged}, lost {len(verdict.lost)}, doubled {len(verdict.doubled)}, "
            f"seconds to recover {recovered}, seed {seed}"
        )
        record_property(_REPORT, f"{request.node.name}: {line}")
        assert verdict.faultless, f"{line}; repeat with PIPELINE_TEST_SEED={seed}\n{verdict}"
        assert verdict.acknowledged > 0, "nothing was acknowledged: this test says nothing"

    return say


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The lines of all scenarios, those of xdist's workers as well."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    lines = [
        str(value)
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
        if name == _REPORT
    ]
    if lines:
        terminalreporter.section("scenarios")
        for line in lines:
            terminalreporter.write_line(line)
