"""Exports: every value as it is, in every format; the window exactly; one snapshot; memory that does not grow."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
from psycopg.types.json import Jsonb

from pipeline_platform.analytics import export as export_room
from pipeline_platform.analytics import rollups
from pipeline_platform.analytics.export import By, Window, export
from pipeline_platform.analytics.formats import COLUMNS, Row
from pipeline_platform.cli import main
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.command import Done
from pipeline_platform_tests.support.tenants import add_tenants

Conn = psycopg.Connection[Any]
_HOUR = datetime(2026, 11, 5, 10, tzinfo=UTC)
_HOSTILE = [
    "plain", "", " ", "a,b", 'say "x"', "two\nlines\r\nthree", '=HYPERLINK("http://x","y")', "+1", "-1", "@cmd",
    "\t", "NULL", "\\N", "\\.", "null",
    "é\u2028\U0001f600\u202e", "'; DROP TABLE x; --", "{}", "1e400", "\ufeff", "\x01\x7f",
]  # fmt: skip
# Numbers that a float would round, deep and empty values.
_JSON = '{"n": 123456789012345678901234567890.10, "e": 1.50, "deep": {"a": [null, {"b": "x\\ny"}]}, "=1+1": ""}'
_INSERT = """
INSERT INTO analytics.events (tenant_id, event_id, message_id, type, name, user_id, occurred_at, received_at,
                              delivered_at, properties, context, rest, batch_id)
VALUES (%s, gen_random_uuid(), %s, 'track', %s, %s, %s, %s, now(), %s, %s, %s, 1)
"""


@pytest.fixture
def tenant(conn: Conn) -> int:
    tenant_id = add_tenants(conn, "acme", "globex")[0].tenant_id
    for hours in range(-2, 5):
        conn.execute("SELECT queue.open_hour(%s)", (_HOUR + timedelta(hours=hours),))
    return tenant_id


def _put(conn: Conn, tenant: int, name: str | None, occurred: datetime, received: datetime, text: str = "x") -> None:
    conn.execute(_INSERT, (tenant, text, name, text, occurred, received, _JSON, Jsonb({"v": text}), _JSON))


@pytest.fixture
def hostile(conn: Conn, tenant: int) -> list[Row]:
    """A row a hostile value, and one of nothing; as the database has them."""
    for number, text in enumerate(_HOSTILE):
        at = _HOUR + timedelta(seconds=number, microseconds=number)
        _put(conn, tenant, text, at, at + timedelta(minutes=1), text)
    _put(conn, tenant, None, _HOUR + timedelta(minutes=30), _HOUR + timedelta(minutes=31))
    rollups.mark(conn, [_HOUR])
    return _rows(conn)


def _rows(conn: Conn) -> list[Row]:
    columns = ", ".join(
        f"{name}::text" if name.endswith(("_id", "ties", "its", "text", "rest")) else name for name in COLUMNS
    )
    query: Any = f"SELECT {columns} FROM analytics.events ORDER BY received_at, event_id"
    return conn.execute(query).fetchall()


Export = Callable[..., Done]


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Export:
    """The command's own entry, in this process: a process each takes seconds."""
    monkeypatch.setenv("PIPELINE_HOME", str(settings.home))
    monkeypatch.setenv("PIPELINE_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("PIPELINE_REDIS_URL", settings.redis_url)

    def call(*words: str, tenant: str = "acme", start: str = "2026-11-05T10:00", end: str = "2026-11-05T11:00") -> Done:
        window = ["--tenant", tenant, "--from", start, "--to", end]
        monkeypatch.setattr(sys, "argv", ["pipeline-platform", "export", *window, *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(int(ended.value.code or 0), *capfd.readouterr())

    return call


def test_ndjson_keeps_every_value(run: Export, hostile: list[Row]) -> None:
    done = run()
    assert done.code == 0, done.err
    lines = done.out.removesuffix("\n").split("\n")
    found = [json.loads(line, parse_float=str) for line in lines]
    assert [list(each) for each in found] == [list(COLUMNS)] * len(hostile)
    assert [[each[name] for name in COLUMNS[:8]] for each in found] == [list(row[:8]) for row in hostile]
    assert [datetime.fromisoformat(each["occurred_at"]) for each in found] == [row[8] for row in hostile]
    assert all(f'"properties":{hostile[0][11]}' in line for line in lines), "the JSON's own text"
    assert [each["context"]["v"] for each in found[:-1]] == _HOSTILE
    assert f"exported {len(hostile)} events of acme" in done.said


def test_csv_is_read_back_by_postgresql_as_it_was(
    run: Export, settings: Settings, conn: Conn, hostile: list[Row]
) -> None:
    file = settings.home / "events.csv"
    done = run("--format", "csv", "-o", str(file), "--json")
    assert done.code == 0, done.err
    assert (done.answer["events"], done.answer["bytes"]) == (len(hostile), file.stat().st_size)
    types = dict.fromkeys(COLUMNS, "text") | dict.fromkeys(
        ("occurred_at", "received_at", "delivered_at"), "timestamptz"
    )
    columns: Any = ", ".join(f"{name} {types[name]}" for name in COLUMNS)
    conn.execute(f"CREATE TEMPORARY TABLE back ({columns})")
    with conn.cursor() as cursor, cursor.copy("COPY back FROM STDIN (FORMAT csv, HEADER match)") as copy:
        copy.write(file.read_bytes())
    assert conn.execute("SELECT * FROM back ORDER BY received_at, event_id").fetchall() == hostile


def test_parquet_keeps_every_value(run: Export, settings: Settings, hostile: list[Row]) -> None:
    file = settings.home / "events.parquet"
    done = run("--format", "parquet", "-o", str(file))
    assert done.code == 0, done.err
    table: Any = pq.read_table(file)
    assert [tuple(row.values()) for row in table.to_pylist()] == hostile
    assert table.column_names == list(COLUMNS)


class _Kept:
    """A writer that keeps what it is given."""

    def __init__(self, on_first: Callable[[], None] = lambda: None) -> None:
        self.rows: list[Row] = []
        self._on_first = on_first

    def write(self, rows: Sequence[Row]) -> None:
        if not self.rows:
            self._on_first()
        self.rows += rows

    def close(self) -> None:
        """Nothing to finish."""


def _names(conn: Conn, window: Window) -> list[str]:
    kept = _Kept()
    export(conn, window, kept, lambda *_: None)
    return sorted(row[3] for row in kept.rows)


@pytest.mark.parametrize("is_rolled_up", [True, False])
def test_a_window_is_exact_by_either_time(conn: Conn, tenant: int, *, is_rolled_up: bool) -> None:
    end = _HOUR + timedelta(hours=1)
    tick = timedelta(microseconds=1)
    places = {
        "first": (_HOUR, _HOUR + tick),
        "last": (end - tick, end - tick),
        "at the end": (end, end),
        "before": (_HOUR - tick, _HOUR),
        "late": (_HOUR + tick, _HOUR + timedelta(hours=3)),
        "future": (_HOUR + timedelta(hours=1, minutes=1), _HOUR + tick),
        "early": (_HOUR + tick, _HOUR - timedelta(hours=2)),
    }
    for name, (occurred, received) in places.items():
        _put(conn, tenant, name, occurred, received)
        _put(conn, tenant + 1, "another's", occurred, received)
    for hours in range(-2, 5):
        conn.execute("INSERT INTO analytics.rollup_marks (tenant_id, received_hour) VALUES (%s, %s)",
                     (tenant, _HOUR + timedelta(hours=hours)))  # fmt: skip
    if is_rolled_up:
        rollups.refresh_all(conn)
    assert _names(conn, Window(tenant, _HOUR, end)) == ["early", "first", "last", "late"]
    assert _names(conn, Window(tenant, _HOUR, end, By.RECEIVED)) == ["before", "first", "future", "last"]
    assert _names(conn, Window(tenant, _HOUR + tick, end)) == ["early", "last", "late"]


def test_an_export_is_one_snapshot(conn: Conn, tenant: int, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_room, "_ROWS_AT_ONCE", 3)
    for second in range(20):
        at = _HOUR + timedelta(minutes=3 * second)
        _put(conn, tenant, f"{second:02}", at, at)
    rollups.mark(conn, [_HOUR])
    rollups.refresh_all(conn)
    with psycopg.connect(database_url, autocommit=True) as other:

        def change() -> None:
            other.execute("DELETE FROM analytics.events WHERE name > '10'")
            _put(other, tenant, "new", _HOUR + timedelta(minutes=59), _HOUR + timedelta(minutes=59))

        kept = _Kept(change)
        told: list[tuple[int, int]] = []
        assert (
            export(conn, Window(tenant, _HOUR, _HOUR + timedelta(hours=1)), kept, lambda *both: told.append(both)) == 20
        )
    assert [row[3] for row in kept.rows] == [f"{second:02}" for second in range(20)]
    assert told[-1] == (20, 20) and len(told) == 7


@pytest.mark.usefixtures("tenant")
def test_what_cannot_be_exported_is_refused(run: Export) -> None:
    def refused(*words: str, **window: str) -> str:
        done = run(*words, **window)
        assert (done.code, done.out) == (2, "")
        return done.said

    assert "--from yesterday: no time" in refused(start="yesterday")
    assert "which is not after its begin" in refused(start="2026-11-05T11:00", end="2026-11-05T10:00")
    assert "which is not after its begin" in refused(start="2026-11-05", end="2026-11-05")
    assert "give -o FILE" in refused("--format", "parquet")
    assert "give -o FILE" in refused("--json")
    assert "cannot be written: No such file" in refused("-o", "/nowhere/x")
    assert "is not a file, so it cannot be replaced" in refused("-o", "/")
    assert "xlsx" in refused("--format", "xlsx")


@pytest.mark.usefixtures("tenant")
def test_nobody_and_nothing(run: Export, settings: Settings) -> None:
    nobody = run(tenant="nobody")
    assert nobody.code == 1 and "no tenant nobody. See: pipeline-platform tenant list" in nobody.said
    for kind, content in (("ndjson", ""), ("csv", ",".join(f'"{name}"' for name in COLUMNS) + "\n")):
        done = run("--format", kind)
        assert (done.code, done.out) == (0, content), done.err
    file = settings.home / "none.parquet"
    assert run("--format", "parquet", "-o", str(file)).code == 0
    assert pq.read_metadata(file).num_rows == 0


def test_a_failed_export_leaves_what_was_there(
    run: Export, settings: Settings, hostile: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = settings.home / "events.ndjson"
    file.write_text("before")
    with monkeypatch.context() as broken:
        broken.setattr(export_room, "_ROWS_AT_ONCE", "no number")
        assert run("-o", str(file)).code != 0
    assert file.read_text() == "before"
    assert run("-o", str(file)).code == 0
    assert file.read_text().count("\n") == len(hostile)
    assert list(settings.home.glob("*.part")) == []


_PEAK = """
import atexit, resource, sys
atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr))
from pipeline_platform.cli import main
main()
"""


@pytest.mark.parametrize("kind", ["ndjson", "parquet"])
def test_memory_does_not_grow(conn: Conn, settings: Settings, tenant: int, kind: str, tmp_path: Path) -> None:
    servers = {"PIPELINE_DATABASE_URL": settings.database_url, "PIPELINE_REDIS_URL": settings.redis_url}
    environment = os.environ | servers | {"PIPELINE_HOME": str(settings.home)}
    peaks: list[int] = []
    for more in (4_000, 36_000):
        conn.execute(
            "INSERT INTO analytics.events (tenant_id, event_id, message_id, type, occurred_at, received_at,"
            " delivered_at, properties, batch_id) SELECT %s, gen_random_uuid(), 'm', 'track', %s, %s, now(),"
            " jsonb_build_object('filler', string_agg(md5(n::text || m::text), '')), 1"
            " FROM generate_series(1, %s) AS n, generate_series(1, 60) AS m GROUP BY n",
            (tenant, _HOUR, _HOUR, more),
        )
        rollups.mark(conn, [_HOUR])
        rollups.refresh_all(conn)
        words = ("export", "--tenant", "acme", "--from", "2026-11-05", "--to", "2026-11-06", "--format", kind)
        file = tmp_path / f"{more}.{kind}"
        done = subprocess.run([sys.executable, "-c", _PEAK, *words, "-o", str(file)], env=environment,
                              capture_output=True, text=True, check=True)  # fmt: skip
        peaks.append(int(done.stderr.split()[-1]) // 1024)
    assert peaks[1] - peaks[0] < 40, f"{peaks} MB for 8 and 80 MB of events"
