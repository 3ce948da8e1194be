"""Fixtures of the gateway's tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.gateway import Blocked, Conn, Gateway, GatewayProcess

Start = Callable[..., Gateway]


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
