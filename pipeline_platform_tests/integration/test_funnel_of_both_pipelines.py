"""Both pipelines side by side in the funnel, and only where there are two."""

from typing import Any

import psycopg
import pytest

from pipeline_platform.account.funnel import funnel_of
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.tenants import add_tenants

Conn = psycopg.Connection[Any]


def _report(conn: Conn, tenant_id: int, stage: str, arrived: int, failed: int) -> None:
    conn.execute(
        "INSERT INTO legacy.stage_counts (tenant_id, hour, stage, arrived, proceeded, failed)"
        " VALUES (%s, date_trunc('hour', now(), 'UTC'), %s, %s, %s, %s)",
        (tenant_id, stage, arrived, arrived - failed, failed),
    )
    for _ in range(failed):
        conn.execute(
            "INSERT INTO legacy.losses (tenant_id, event_id, stage, cause)"
            " VALUES (%s, gen_random_uuid(), %s, 'timeout')",
            (tenant_id, stage),
        )


def test_without_a_migration_there_is_one_pipeline(conn: Conn) -> None:
    assert "legacy" not in funnel_of(conn).to_json()


def test_both_sides_are_shown_and_where_events_died(conn: Conn) -> None:
    acme, umbra = add_tenants(conn, "acme", "umbra")
    for stage, arrived, failed in (("write", 6, 1), ("mirror", 10, 0), ("lookup", 9, 3), ("gateway", 10, 1)):
        _report(conn, acme.tenant_id, stage, arrived, failed)
    _report(conn, umbra.tenant_id, "mirror", 2, 0)
    whole = funnel_of(conn).to_json()["legacy"]
    assert [stage["stage"] for stage in whole["stages"]] == ["mirror", "gateway", "lookup", "write"]
    assert (whole["mirrored"], whole["delivered"]) == (12, 5)
    assert whole["causes"][0] == {"stage": "lookup", "cause": "timeout", "events": 3}
    assert whole["tenants"] == [
        {"tenant": "acme", "mirrored": 10, "delivered": 5},
        {"tenant": "umbra", "mirrored": 2, "delivered": None},
    ]
    assert (
        funnel_of(conn, "umbra").to_json()["legacy"] | {"mirrored": 2, "delivered": None, "causes": []}
        == (funnel_of(conn, "umbra").to_json()["legacy"])
    )


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_command_prints_both(conn: Conn, settings: Settings, options: list[str]) -> None:
    (acme,) = add_tenants(conn, "acme")
    _report(conn, acme.tenant_id, "mirror", 3, 1)
    done = run_command(settings, "funnel", *options)
    assert done.code == 0
    if options:
        assert done.answer["legacy"]["mirrored"] == 3
    else:
        assert "The old pipeline, as it counts itself" in done.out
