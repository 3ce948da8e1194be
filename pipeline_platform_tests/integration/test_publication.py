"""The publication of the guide: a subscriber has every delivered event, and none of an erased person."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline_platform.account.audit import audit
from pipeline_platform.erasure.erase import erase
from pipeline_platform.local.services import ensure_database
from pipeline_platform.queue.keeper import seal_due_hours
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.planting import past_hours, plant
from pipeline_platform_tests.support.servers import fresh_database, make_url, own_postgres
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.workers import drain

_GUIDE = Path(__file__).parents[2] / "docs/how-to/export-hours-to-a-warehouse.md"
_TABLES = ("analytics.events", "account.counters", "control.tenants")
_COLUMNS = """
SELECT string_agg(quote_ident(attname) || ' text', ', '),
       (SELECT string_agg(quote_ident(k.attname), ', ') FROM pg_index AS i
        JOIN pg_attribute AS k ON k.attrelid = i.indrelid AND k.attnum = ANY(i.indkey)
        WHERE i.indrelid = to_regclass(%(table)s) AND i.indisprimary)
FROM pg_attribute WHERE attrelid = to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped
"""


@pytest.fixture
def logical(home: Path) -> Iterator[str]:
    """The URL of a platform's database on a server with wal_level = logical."""
    server = own_postgres(home)
    try:
        with psycopg.connect(server.url, autocommit=True) as conn:
            conn.execute("ALTER SYSTEM SET wal_level = 'logical'")
        server.stop()
        server.start()
        yield fresh_database(server, "published")
    finally:
        server.stop()


def _subscriber(conn: psycopg.Connection[Any], published: str) -> str:
    """A database with the same tables, all columns as text; returns its URL."""
    ensure_database(published, "warehouse")
    url = make_url(published, "warehouse")
    with psycopg.connect(url, autocommit=True) as warehouse:
        for table in _TABLES:
            columns, keys = conn.execute(_COLUMNS, {"table": table}).fetchone() or ("", "")
            warehouse.execute(f"CREATE SCHEMA IF NOT EXISTS {table.partition('.')[0]}")
            warehouse.execute(f"CREATE TABLE {table} ({columns}, PRIMARY KEY ({keys}))")
    return url


def _publication() -> str:
    (found,) = re.findall(r"```sql\n(CREATE PUBLICATION .*?)```", _GUIDE.read_text(), re.DOTALL)
    return found


def test_a_subscriber_has_what_was_delivered_and_its_account(logical: str, settings: Settings) -> None:
    own = settings.model_copy(update={"database_url": logical})
    with psycopg.connect(logical, autocommit=True) as conn:
        conn.execute(_publication())
        conn.execute("SELECT pg_create_logical_replication_slot('warehouse', 'pgoutput')")
        tenant = add_tenant(conn, "acme").tenant_id
        hours = past_hours(2)
        plant(conn, tenant, hours[0], 5)
        drain(own)
        with psycopg.connect(_subscriber(conn, logical), autocommit=True) as warehouse:
            warehouse.execute(
                f"CREATE SUBSCRIPTION w CONNECTION '{logical}' PUBLICATION pipeline_events "
                "WITH (create_slot = false, slot_name = 'warehouse')"
            )
            plant(conn, tenant, hours[1], 7)
            drain(own)
            seal_due_hours(conn)
            assert not audit(conn).differences
            counted = "SELECT sum(delivered::int) FROM account.counters"
            rows = "SELECT count(*) FROM analytics.events"

            def have(query: str, wanted: int) -> bool:
                return warehouse.execute(query).fetchone() == (wanted,)

            wait_for("the rows", lambda: have(rows, 12), 60)
            while conn.execute("SELECT account.fold(1000)").fetchone() != (0,):
                pass
            wait_for("the account", lambda: have(counted, 12), 60)
            erase(own, "acme", "u1", "request 1")
            wait_for("the erasure", lambda: have(rows, 0), 60)
            warehouse.execute("DROP SUBSCRIPTION w")
