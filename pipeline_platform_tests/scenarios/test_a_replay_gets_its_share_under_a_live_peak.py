"""Promise: a replay goes on while more live events wait than the workers can process, and so do they beside it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pipeline_platform.account.audit import audit
from pipeline_platform.event.types import TenantId
from pipeline_platform.queue.keeper import open_partitions
from pipeline_platform.replay import steps
from pipeline_platform.replay.plan import Scope, make_plan
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.queue import accept, event
from pipeline_platform_tests.support.tenants import add_tenants
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]
_BATCH = 2_000
_BATCHES = 20


@pytest.mark.parametrize("workers", [1, 2])
def test_a_replay_gets_its_share_under_a_live_peak(conn: Conn, settings: Settings, workers: int) -> None:
    (tenant,) = add_tenants(conn, "acme")
    open_partitions(conn)
    with Platform(settings) as platform:
        _accept(conn, tenant.tenant_id, "old", _BATCH)
        platform.start_workers(1)
        platform.await_drained(conn)
        platform.stop_workers()
        now = datetime.now(UTC)
        replay_id = make_plan(conn, Scope(now - timedelta(hours=1), now), "a test").replay_id
        for number in range(_BATCHES * workers):
            _accept(conn, tenant.tenant_id, f"live-{number}", _BATCH)
        steps.start_diff(conn, replay_id)
        platform.start_workers(workers)
        wait_for("the replay's diff", lambda: steps.progress(conn, replay_id).state == "diffed", 60)
        waiting, delivered = conn.execute(
            "SELECT (SELECT count(*) FROM queue.work WHERE lane = 'live'), (SELECT count(*) FROM analytics.events)"
        ).fetchone() or (0, 0)
        assert waiting > 0, "the replay waited until no live event did"
        assert delivered > _BATCH, "live events waited for the replay"
        platform.await_drained(conn)
    assert not audit(conn).differences


def _accept(conn: Conn, tenant: TenantId, prefix: str, events: int) -> None:
    accept(conn, *(event(tenant, f"{prefix}-{number}") for number in range(events)))
