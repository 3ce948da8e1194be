"""A free port stays free until whoever asked listens on it: outgoing connections never take it."""

import socket
from pathlib import Path

import pytest

from pipeline_platform.local.services.process import free_port

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


@pytest.mark.skipif(not _RANGE.exists(), reason="the range is read from Linux")
def test_it_is_none_of_those_for_outgoing_connections() -> None:
    first = int(_RANGE.read_text().split()[0])
    assert all(1024 < free_port() < first for _ in range(50))


def test_the_preferred_one_is_given_where_it_is_free() -> None:
    port = free_port()
    assert free_port(port) == port
    with socket.create_server(("127.0.0.1", port)):
        assert free_port(port) != port
