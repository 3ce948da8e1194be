"""The schema in one file is the database's; a database of the version before the baseline keeps all that it holds."""

import gzip
import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any, LiteralString, cast

import psycopg
import pytest

from pipeline_platform import schema
from pipeline_platform.account.audit import audit
from pipeline_platform.account.funnel import funnel_of
from pipeline_platform.db import connect
from pipeline_platform.errors import ConfigError
from pipeline_platform.local.services.postgres import binaries
from pipeline_platform.migration.identities import store_identities
from pipeline_platform.migration.mirror.configure import configure, read_file
from pipeline_platform.replay import report, steps
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.workers import working

Conn = psycopg.Connection[Any]
_ROOT = Path(__file__).parents[2]
# Made by the code before the baseline: rows in every table, two events in flight, a committed and a half diffed replay.
_FORMER = _ROOT / "pipeline_platform_tests/former/0020.sql.gz"
_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'public')
ORDER BY 1
"""
# A diff of the former version has no proof that it read all: it is started again.
_EMPTIED = {"replay.scratch", "replay.counts"}
_RENAMED = {"control.alert_marks": "control.alert_progress"}


def _writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_schema", _ROOT / "sql/write_schema.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_WRITER = _writer()


def test_the_schema_in_one_file_is_that_of_the_database(database_url: str) -> None:
    assert _WRITER.schema_of(database_url) == _WRITER.FILE.read_text(), "run: python sql/write_schema.py"


def _rows(conn: Conn) -> dict[str, int]:
    tables = [table for (table,) in conn.execute(_TABLES).fetchall()]
    return {table: _one(conn, f"SELECT count(*) FROM {table}") for table in tables}


def _one(conn: Conn, query: str) -> Any:
    row = conn.execute(cast("LiteralString", query)).fetchone()
    assert row
    return row[0]


@pytest.fixture
def former(empty_database_url: str) -> str:
    """The URL of a database as the former version left it."""
    subprocess.run(
        [binaries() / "psql", "-q", "-v", "ON_ERROR_STOP=1", empty_database_url],
        input=gzip.decompress(_FORMER.read_bytes()), check=True, capture_output=True,
    )  # fmt: skip
    return empty_database_url


def test_a_former_database_keeps_events_account_replays_and_alerts(former: str, settings: Settings) -> None:
    with connect(former, "test") as conn:
        before = _rows(conn)
        assert not [table for table, rows in before.items() if not rows]
        schema.migrate(former)
        after = _rows(conn)
        assert {table: after[_RENAMED.get(table, table)] for table in before if table not in _EMPTIED} == {
            table: rows for table, rows in before.items() if table not in _EMPTIED
        }
        funnel = funnel_of(conn).to_json()
        assert (funnel["balanced"], funnel["received"], funnel["delivered"], funnel["in_flight"]) == (True, 92, 47, 2)
        assert not audit(conn).differences
        _go_on(conn, settings.model_copy(update={"database_url": former}))
        assert not audit(conn).differences
    assert schema.migrate(former) == []


def _go_on(conn: Conn, settings: Settings) -> None:
    """What waited is delivered; the committed replay is undone; the half diff is done anew."""
    with working(settings) as workers:
        assert workers.step().delivered == 2
        committed = _one(conn, "SELECT replay_id FROM replay.replays WHERE state = 'committed'")
        planned = _one(conn, "SELECT replay_id FROM replay.replays WHERE state = 'planned'")
        steps.start_undo(conn, committed, "a test")
        steps.start_diff(conn, planned)
        workers.replay()
    assert report.diff(conn, committed)["state"] == "undone"
    assert report.diff(conn, planned)["state"] == "diffed"


def test_a_view_over_a_table_of_the_users_own_stays_what_it_is(former: str, tmp_path: Path) -> None:
    with connect(former, "test") as conn:
        conn.execute("CREATE TABLE public.old (t integer, m text, at timestamp, n text)")
        conn.execute(
            "INSERT INTO public.old SELECT 1, unnest(ARRAY[gen_random_uuid()::text, 'ajs-1']), '2026-10-05 10:00', 'x'"
        )
        conn.execute(
            "CREATE OR REPLACE VIEW legacy.output AS SELECT o.t::integer AS tenant_id,"
            " legacy.event_id_of(o.m) AS event_id, o.m::text AS message_id, NULL::text AS type, o.n::text AS name,"
            " NULL::text AS user_id, NULL::text AS anonymous_id, NULL::text AS group_id, NULL::text AS previous_id,"
            " NULL::timestamptz AS occurred_at, (o.at AT TIME ZONE 'UTC')::timestamptz AS received_at,"
            " NULL::timestamptz AS delivered_at, NULL::jsonb AS properties, NULL::jsonb AS traits,"
            " NULL::jsonb AS context, NULL::bigint AS digest FROM public.old AS o"
        )
        conn.execute("UPDATE control.legacy_target SET output_table = 'public.old'")
        before = conn.execute("SELECT * FROM legacy.output").fetchall()
        assert len(before) == 2
        schema.migrate(former)
        store_identities(conn)
        assert conn.execute("SELECT * FROM legacy.output").fetchall() == before
        file = tmp_path / "old.toml"
        file.write_text('[output]\ntable = "public.old"\ncompared = ["name"]\n[output.columns]\ntenant_id = "t"\n'
                        'message_id = "m"\nreceived_at = "at"\nname = "n"\n')  # fmt: skip
        configure(conn, read_file(file))
        assert conn.execute("SELECT * FROM legacy.output").fetchall() == before


def test_an_older_database_is_refused(former: str) -> None:
    with connect(former, "test") as conn:
        conn.execute("DELETE FROM public.pipeline_migrations WHERE name = '0020_identities'")
    with pytest.raises(ConfigError, match="only a database at migration 0020_identities is upgraded"):
        schema.migrate(former)


def test_a_function_whose_file_changed_is_replaced(database_url: str) -> None:
    with connect(database_url, "test") as conn:
        conn.execute("UPDATE public.pipeline_functions SET body = '' WHERE name = 'queue/hour_lock'")
        conn.execute("CREATE OR REPLACE FUNCTION queue.hour_lock(an_hour timestamptz) RETURNS bigint LANGUAGE sql"
                     " IMMUTABLE PARALLEL SAFE RETURN 0::bigint")  # fmt: skip
        assert schema.missing(conn) == ["queue/hour_lock"]
        assert schema.migrate(database_url) == ["queue/hour_lock"]
        assert schema.missing(conn) == []
        assert _one(conn, "SELECT queue.hour_lock(now()) > 0")
