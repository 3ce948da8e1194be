"""Promise: a backfill of 72 hours gets done whatever is killed or stopped meanwhile, and nothing stays stuck.

`make faults` applies all faults to one backfill, one after the other, and then each fault to a backfill of its own,
five times. It needs a machine that does nothing else: there all hours are done within three minutes of the last fault.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from pipeline_platform.defs.hours import key_of
from pipeline_platform_tests.support.planting import open_hour, past_hours, plant
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.whole_platform import WholePlatform

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

_HOURS, _EVENTS = 72, 3
_ROUNDS = int(os.environ.get("PIPELINE_TEST_FAULTS") or 5)
_LIMIT_S = 180.0
_START_S = 600.0
_CHILDREN = ("dagster-web", "dagster-code", "dagster-daemon")
_VICTIMS = (*_CHILDREN, "run", "supervisor", "postgres")
_HOLD = "SELECT pg_advisory_lock_shared(queue.hour_lock(%s))"
_OPEN_ALERTS = "SELECT kind, message FROM control.alerts WHERE kind LIKE 'dagster%' AND resolved_at IS NULL"


@contextmanager
def backfill(platform: WholePlatform) -> Iterator[None]:
    """A backfill whose run waits in the middle, at an hour that is held until the context is left or PostgreSQL dies.

    After that, all of it gets done in time.
    """
    hours = past_hours(_HOURS)
    names = [key_of(hour) for hour in hours]
    with psycopg.connect(platform.endpoints.database_url, autocommit=True) as conn:
        _plant(conn, hours)
        backfill_id = platform.launch(names)
        middle = names[: _HOURS // 2]
        wait_for("the middle", lambda: platform.materialized("delivered_events", middle) == len(middle), _START_S)
        _await_run(platform)
        yield
        last_fault = time.monotonic()
    wait_for("the backfill", lambda: platform.status(backfill_id) == "COMPLETED_SUCCESS", _LIMIT_S)
    assert platform.materialized("delivered_events", names) == _HOURS
    print(f"done {time.monotonic() - last_fault:.0f} s after the last fault")
    platform.await_at_rest(_LIMIT_S)
    with psycopg.connect(platform.endpoints.database_url, autocommit=True) as conn:
        assert conn.execute("SELECT count(*) FROM analytics.events").fetchone() == (_HOURS * _EVENTS,)
        wait_for("no alert to be open", lambda: conn.execute(_OPEN_ALERTS).fetchall() == [], 120)


def _plant(conn: psycopg.Connection[tuple[object, ...]], hours: list[datetime]) -> None:
    tenant = add_tenant(conn).tenant_id
    held = hours[_HOURS // 2]
    open_hour(conn, held)
    conn.execute(_HOLD, (held,))
    for hour in hours:
        plant(conn, tenant, hour, _EVENTS)


def _await_run(platform: WholePlatform, before: int | None = None) -> int:
    """The process of the backfill's run, another one than `before`."""
    return wait_for("a run of the backfill", lambda: pid if (pid := platform.run()) != before else None, _START_S)


def test_all_faults_in_one_backfill(home: Path) -> None:
    with WholePlatform(home) as platform, backfill(platform):
        run, children = platform.run(), platform.endpoints.pids
        for name in _CHILDREN:
            platform.kill(name)
        for name in _CHILDREN:
            platform.await_another(name, children[name])
        assert platform.run() == run, "the run did not outlive the code server and the daemon"
        platform.kill("run")
        run, children = _await_run(platform, run), platform.endpoints.pids
        for name in (*_CHILDREN, "run"):
            platform.signal(name, signal.SIGSTOP)
        for name in _CHILDREN:
            platform.await_another(name, children[name])
        run = _await_run(platform, run)
        platform.signal("supervisor", signal.SIGSTOP)
        platform.kill("supervisor")
        _await_run(platform, run)
        platform.kill("postgres")


@pytest.mark.parametrize("round_", range(_ROUNDS))
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("victim", _VICTIMS)
def test_each_fault(home: Path, victim: str, number: signal.Signals, round_: int) -> None:
    with WholePlatform(home) as platform, backfill(platform):
        if number is signal.SIGKILL:
            platform.kill(victim)
        else:
            # The backfill is done while the supervisor stays stopped; all others are started again.
            platform.signal(victim, number)
