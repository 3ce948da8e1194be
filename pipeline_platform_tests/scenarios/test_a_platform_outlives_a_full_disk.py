"""Promise: whatever dies while the disk is full, the platform serves again when there is room, and nothing is lost."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from pipeline_platform_tests.support.client import Client
from pipeline_platform_tests.support.disks import fill, make_room, small_disk
from pipeline_platform_tests.support.supervised import endpoints_of, ready, supervised
from pipeline_platform_tests.support.tenants import Tenant, add_tenants
from pipeline_platform_tests.support.waiting import wait_for

_DISK_MB = 900
_VICTIMS = ("gateway", "workers", "console", "redis", "postgres")
# Longer than a supervisor waits before it starts a child again.
_WITHOUT_ROOM_S = 8.0
_EVENTS = 50
_serving = partial(supervised, workers="1", disk_free_bytes_min="0")


def _acknowledged(home: Path, tenant: Tenant, name: str) -> bool:
    port = urlsplit(endpoints_of(home).gateway).port
    assert port
    events = [
        {"type": "track", "event": name, "userId": "a", "messageId": f"{name} {number}"} for number in range(_EVENTS)
    ]
    return Client(port, tenant.write_key).send(events).outcome == "acknowledged"


def _delivered(home: Path) -> dict[str, int]:
    with suppress(psycopg.OperationalError), psycopg.connect(endpoints_of(home).database_url) as conn:
        return dict(conn.execute("SELECT name, count(*) FROM analytics.events GROUP BY name").fetchall())
    return {}


def _kill(home: Path, *names: str) -> None:
    pids = endpoints_of(home).pids
    for name in names:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pids[name]).kill()


@pytest.fixture
def disk() -> Iterator[Path]:
    with small_disk(_DISK_MB) as place:
        yield place


def _tenant_with_events(home: Path) -> Tenant:
    with psycopg.connect(endpoints_of(home).database_url) as conn:
        (tenant,) = add_tenants(conn, "a")
    assert _acknowledged(home, tenant, "before")
    return tenant


def _goes_on(home: Path, tenant: Tenant) -> None:
    """It takes events again, and has delivered each once, those from before the fault too."""
    wait_for("the gateway to be ready again", lambda: ready(home), 120)
    assert wait_for("an acknowledgement", lambda: _acknowledged(home, tenant, "after"), 60)
    expected = {"before": _EVENTS, "after": _EVENTS}
    wait_for("all events to be delivered once", lambda: _delivered(home) == expected, 60)


def test_every_child_is_killed_while_the_disk_is_full(disk: Path) -> None:
    home = disk / "home"
    with _serving(home) as supervisor:
        tenant = _tenant_with_events(home)
        fill(disk)
        _kill(home, *_VICTIMS)
        time.sleep(_WITHOUT_ROOM_S)
        assert supervisor.poll() is None, "the supervisor ended on a full disk"
        make_room(disk)
        _goes_on(home, tenant)


def test_the_supervisor_itself_is_killed_while_the_disk_is_full(disk: Path) -> None:
    home = disk / "home"
    with _serving(home) as supervisor:
        tenant = _tenant_with_events(home)
        fill(disk)
        os.kill(supervisor.pid, signal.SIGKILL)
        supervisor.wait()
    make_room(disk)
    with _serving(home):
        _goes_on(home, tenant)
