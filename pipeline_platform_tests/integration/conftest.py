"""Fixtures of the tests of the gateway and of `/metrics`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.gateway import Blocked, Conn, Gateway, GatewayProcess, Start
from pipeline_platform_tests.support.metrics import AS_TEXT, Samples, samples_of, served


@pytest.fixture
def start(settings: Settings, conn: Conn) -> Iterator[Start]:
    """Starts a gateway with settings of the test's own."""
    with ExitStack() as running:

        def run(kill_point: str = "", **more: str) -> Gateway:
            process = running.enter_context(GatewayProcess(settings, **more))
            gateway = Gateway(process.start(kill_point), conn)
            running.callback(gateway.client.close)
            return gateway

        yield run


@pytest.fixture
def gateway(start: Start) -> Gateway:
    return start()


@pytest.fixture
def block(settings: Settings) -> Iterator[Callable[[], Blocked]]:
    """Makes commits wait until they are released."""
    with ExitStack() as held:

        def hold() -> Blocked:
            blocked = Blocked(settings.database_url)
            held.callback(blocked.conn.close)
            return blocked

        yield hold


@pytest.fixture
def scrape(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Samples]]:
    """Reads everything anew."""
    monkeypatch.setattr("pipeline_platform.telemetry.metrics.endpoint._FRESH_S", 0.0)
    monkeypatch.setattr("pipeline_platform.telemetry.metrics.scrape._SELDOM_S", 0.0)
    with served(settings) as url:
        yield lambda: samples_of(httpx.get(url, headers=AS_TEXT, timeout=30).text)
