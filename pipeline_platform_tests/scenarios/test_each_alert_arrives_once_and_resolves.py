"""Promise: each alert is provoked by its real cause, arrives once at a webhook that first answers 500, and resolves."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from pipeline_platform.local.services.process import free_port
from pipeline_platform.queue.keeper import open_partitions
from pipeline_platform.settings import Settings
from pipeline_platform.watch.alerts.catalogue import CATALOGUE, Kind
from pipeline_platform.watch.alerts.process import Alerter
from pipeline_platform_tests.support.causes.catalogue import CAUSES
from pipeline_platform_tests.support.causes.world import World
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.webhook import Told, Webhook

pytestmark = pytest.mark.timeout(600)

_MOODY = """
import dagster as dg
from pathlib import Path
@dg.sensor(minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def moody():
    if not (Path(__file__).parent / "cheerful").exists():
        raise RuntimeError("no mood for it")
    return dg.SkipReason("cheerful")
defs = dg.Definitions(sensors=[moody])
"""


class Alerting:
    """The alerts' process, in a thread: started, and started again with other settings."""

    def __init__(self) -> None:
        self._alerter: Alerter | None = None
        self._thread: threading.Thread | None = None

    def start(self, settings: Settings) -> None:
        self.stop()
        self._alerter = Alerter(settings)
        self._thread = threading.Thread(target=self._alerter.run)
        self._thread.start()

    def stop(self) -> None:
        if self._alerter and self._thread:
            self._alerter.stop()
            self._thread.join()


@pytest.fixture
def alerting() -> Iterator[Alerting]:
    running = Alerting()
    yield running
    running.stop()


@dataclass(frozen=True, slots=True)
class MoodyDaemon:
    """A real daemon that ticks a sensor, which raises until it is cheered up."""

    directory: Path

    def cheer_up(self) -> None:
        (self.directory / "cheerful").touch()


@pytest.fixture
def moody_daemon(instance: dg.DagsterInstance, tmp_path: Path) -> Iterator[MoodyDaemon]:
    """On the test's instance, whose environment it inherits."""
    (tmp_path / "moody.py").write_text(_MOODY)
    command = [sys.executable, "-m", "dagster._daemon", "run", "--python-file", str(tmp_path / "moody.py")]
    with (tmp_path / "daemon.log").open("w") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    try:
        yield MoodyDaemon(tmp_path)
    finally:
        daemon.terminate()
        daemon.wait()


@pytest.fixture
def world_settings(request: pytest.FixtureRequest, kind: Kind) -> Settings:
    name = "mortal_settings" if kind is Kind.DATABASE_AWAY else "settings"
    return request.getfixturevalue(name)


def _told(hook: Webhook, wanted: Callable[[Told], bool]) -> list[Told]:
    return [told for told in hook.taken if wanted(told)]


@pytest.mark.parametrize("kind", list(Kind))
def test_each_alert_arrives_once_and_resolves(
    kind: Kind, world_settings: Settings, alerting: Alerting, request: pytest.FixtureRequest
) -> None:
    cause = CAUSES[kind]
    dead_url = f"json://127.0.0.1:{free_port()}/" if kind is Kind.CHANNEL_DOWN else ""
    page = f"runbook: docs/runbooks/{kind}.md"
    with Webhook(refusals=1) as hook, psycopg.connect(world_settings.database_url, autocommit=True) as conn:
        settings = world_settings.model_copy(
            update={"alert_urls": f"{hook.url} {dead_url}", "alert_every_s": 0.1, "alert_quiet_s": 0.0, **_CALM}
            | cause.settings
        )

        def restart(**more: Any) -> None:
            alerting.start(settings.model_copy(update=more))

        if kind is not Kind.PARTITIONS_LOW:
            open_partitions(conn)
        ending = cause.provoke(World(settings, conn, request, restart, dead_url))
        alerting.start(settings)
        next(ending)
        opened = wait_for(f"{kind} to arrive", lambda: _told(hook, lambda told: page in told.text), 60)
        title = opened[0].title
        with suppress(StopIteration):
            next(ending)
        wait_for(f"{kind} to be resolved", lambda: _told(hook, lambda told: told.title == title and _over(told)), 60)
        alerting.stop()
    assert CATALOGUE[kind].title in title
    assert hook.refused[title] == 1, "it was refused first"
    assert [_over(told) for told in _told(hook, lambda told: told.title == title)] == [False, True]
    for line in ("what: ", "who: ", "since: ", "how many: ", page, "next: pipeline-platform "):
        assert line in opened[0].text
    assert "{" not in opened[0].text


# The other causes stay away: a test's machine may be slow or full, its events are few, and planted hours are past.
# More than three alerts of one tick are told as one list, which has no page.
_CALM = {
    "alert_disk_free_bytes_min": 0,
    "objective_latency_p95_ms": 1e9,
    "objective_lag_s": 1e6,
    "alert_queue_stopped_s": 3600.0,
}


def _over(told: Told) -> bool:
    return told.type == "success"


def test_every_kind_has_a_cause_here_and_a_line_in_the_catalogue() -> None:
    assert set(CAUSES) == set(Kind)
    assert set(CATALOGUE) == {kind.value for kind in Kind}
