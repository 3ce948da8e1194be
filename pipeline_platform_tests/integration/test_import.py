"""History comes in once, in its own hours, whatever happens on the way."""

import gzip
import json
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline_platform.account.audit import audit
from pipeline_platform.account.funnel import funnel_of
from pipeline_platform.queue.keeper import seal_due_hours
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]
_DATA = Path(__file__).parents[2].parent / "shared/data/page_views.ndjson.gz"
_HOUR = timedelta(hours=1)


def this_hour() -> datetime:
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


class Importer:
    """The command, run as a process of its own on a file of the test."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.file = settings.home / "past.ndjson"

    def write(self, *events: dict[str, Any] | str) -> None:
        lines = [event if isinstance(event, str) else json.dumps(event) for event in events]
        self.file.write_text("\n".join(lines) + "\n")

    def start(self, *options: str, stdin: bytes | None = None, kill_point: str = "") -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        source = "-" if stdin is not None else str(self.file)
        words = ("import", source, "--tenant-field", "tenant", *options)
        done = run_command(self._settings, *words, stdin=stdin or b"", kill_point=kill_point)
        return done.code, done.out, done.err

    def run(self, *options: str, exit_code: int = 0, **more: Any) -> dict[str, Any]:
        """The answer of `import … --received-at timestamp --json`."""
        code, out, err = self.start("--received-at", "timestamp", "--json", *options, **more)
        assert code == exit_code, err
        return json.loads(out)


@pytest.fixture
def importer(settings: Settings) -> Importer:
    return Importer(settings)


def event(message_id: str, at: datetime, **more: Any) -> dict[str, Any]:
    return {
        "messageId": message_id,
        "type": "track",
        "event": "Clicked",
        "userId": "u",
        "tenant": "acme",
        "timestamp": at.isoformat(),
    } | more


def count(conn: Conn, query: str) -> Any:
    row = conn.execute(query.encode()).fetchone()
    assert row
    return row[0]


def many(hours: int, each: int) -> list[dict[str, Any]]:
    start = this_hour() - hours * _HOUR
    return [
        event(f"{hour}-{number}", start + hour * _HOUR + timedelta(microseconds=number))
        for hour in range(hours)
        for number in range(each)
    ]


def test_events_keep_their_hours(importer: Importer, conn: Conn, settings: Settings) -> None:
    importer.write(*many(3, 2))
    found = importer.run()
    assert (found["accepted"], found["rejected"], found["past_retention"]) == (6, 0, [])
    assert [hour["events"] for hour in found["hours"]] == [2, 2, 2]
    drain(settings)
    rows = conn.execute("SELECT message_id, received_at, occurred_at FROM analytics.events ORDER BY 2").fetchall()
    expected = [datetime.fromisoformat(item["timestamp"]) for item in many(3, 2)]
    assert [row[1] for row in rows] == [row[2] for row in rows] == expected
    assert [part.hour for part in funnel_of(conn).hours] == [this_hour() - n * _HOUR for n in (3, 2, 1)]
    assert audit(conn).differences == []
    assert count(conn, "SELECT count(*) FROM queue.events WHERE received_at = batch_received_at") == 3


def test_the_same_import_adds_nothing(importer: Importer, conn: Conn) -> None:
    importer.write(*many(2, 3))
    importer.run()
    again = importer.run()
    assert (again["accepted"], again["already_imported"]) == (0, 6)
    assert funnel_of(conn).numbers.accepted == 6
    assert count(conn, "SELECT finished_at IS NOT NULL FROM control.imports")


def test_a_killed_import_goes_on_where_it_was(importer: Importer, conn: Conn, settings: Settings) -> None:
    importer.write(*many(4, 1_500))
    code, *_ = importer.start("--received-at", "timestamp", kill_point="import.after_chunk:3")
    assert code == -signal.SIGKILL
    assert count(conn, "SELECT count(*) FROM control.import_chunks") == 3
    before = funnel_of(conn).numbers.accepted
    assert 0 < before < 6_000
    found = importer.run()
    assert (found["accepted"], found["already_imported"]) == (6_000 - before, before)
    drain(settings)
    counted = funnel_of(conn).numbers
    assert (counted.accepted, counted.delivered, counted.duplicate) == (6_000, 6_000, 0)
    assert audit(conn).differences == []


def test_killed_before_a_chunk_it_loses_nothing(importer: Importer, conn: Conn) -> None:
    importer.write(*many(2, 10))
    code, *_ = importer.start("--received-at", "timestamp", kill_point="import.before_chunk:2")
    assert code == -signal.SIGKILL
    assert importer.run()["accepted"] == 10
    assert funnel_of(conn).numbers.accepted == 20


def test_the_first_run_decides_the_shift(importer: Importer, conn: Conn) -> None:
    start = datetime(2015, 5, 17, 10, 30, tzinfo=UTC)
    importer.write(*[event(f"m{number}", start + number * _HOUR) for number in range(5)])
    code, *_ = importer.start("--received-at", "timestamp", "--shift-to-now", kill_point="import.after_chunk:2")
    assert code == -signal.SIGKILL
    first = conn.execute("SELECT import_id, shift FROM control.imports").fetchone()
    importer.run("--shift-to-now")
    assert conn.execute("SELECT import_id, shift FROM control.imports").fetchone() == first
    newest = count(conn, "SELECT max(received_at) FROM queue.events")
    assert timedelta() <= datetime.now(UTC) - newest < timedelta(minutes=5)
    assert count(conn, "SELECT max(received_at) - min(received_at) FROM queue.events") == 4 * _HOUR


def test_a_shift_moves_the_events_own_times_too(importer: Importer, conn: Conn, settings: Settings) -> None:
    at = datetime(2015, 5, 17, 10, tzinfo=UTC)
    own = {
        "originalTimestamp": (at - _HOUR).isoformat(),
        "sentAt": (at - timedelta(minutes=1)).isoformat(),
        "receivedAt": at.isoformat(),
    }
    importer.write(event("m", at, **own), event("last", at + timedelta(seconds=1)))
    importer.run("--shift-to-now")
    drain(settings)
    lag = count(conn, "SELECT received_at - occurred_at FROM analytics.events WHERE message_id = 'm'")
    assert lag == timedelta(minutes=59)


def test_hours_past_retention_are_reported(importer: Importer, conn: Conn, settings: Settings) -> None:
    old = this_hour() - timedelta(hours=settings.retention_h + 2)
    importer.write(event("old-1", old), event("old-2", old), event("new", this_hour() - _HOUR))
    found = importer.run(exit_code=1)
    assert found["accepted"] == 1
    assert [(datetime.fromisoformat(part["hour"]), part["events"]) for part in found["past_retention"]] == [(old, 2)]
    assert funnel_of(conn).numbers.received == 1
    _, out, _ = importer.start("--received-at", "timestamp")
    assert f"{old:%Y-%m-%d %H}:00  2" in out


def test_a_dropped_hour_stays_closed(importer: Importer, conn: Conn) -> None:
    hour = this_hour() - _HOUR
    conn.execute("INSERT INTO queue.hours (hour, sealed_at, dropped_at) VALUES (%s, now(), now())", (hour,))
    importer.write(event("m", hour))
    assert importer.run(exit_code=1)["past_retention"][0]["events"] == 1


def test_a_sealed_hour_is_opened_and_sealed_again(importer: Importer, conn: Conn) -> None:
    hour = this_hour() - 2 * _HOUR
    conn.execute("SELECT queue.open_hour(%s)", (hour,))
    seal_due_hours(conn)
    importer.write(event("m", hour))
    importer.run()
    state = "SELECT sealed_at IS NOT NULL, seals FROM queue.hours WHERE hour = %s"
    assert conn.execute(state, (hour,)).fetchone() == (False, 1)
    seal_due_hours(conn)
    assert conn.execute(state, (hour,)).fetchone() == (True, 2)


def test_the_hours_are_held_while_it_runs_and_a_second_run_is_refused(importer: Importer, conn: Conn) -> None:
    """The table of records is locked, so the import stands still before its first chunk."""
    hour = this_hour() - _HOUR
    importer.write(event("m", hour))
    import_id = importer.run("--dry-run")["import_id"]
    with psycopg.connect(conn.info.dsn, password=conn.info.password) as held:
        held.execute("SELECT pg_advisory_lock(hashtextextended(%s, 7))", (import_id,))
        code, _, err = importer.start("--received-at", "timestamp")
        assert code == 1
        assert "running already" in " ".join(err.split())
    with psycopg.connect(conn.info.dsn, password=conn.info.password) as held:
        conn.execute("SELECT queue.open_hour(%s)", (hour,))
        held.execute("SELECT pg_advisory_lock_shared(queue.hour_lock(%s))", (hour,))
        assert conn.execute("SELECT queue.seal_hour(%s)", (hour,)).fetchone() == (False,)


def test_bad_lines_are_named_and_bad_events_quarantined(importer: Importer, conn: Conn) -> None:
    hour = this_hour() - _HOUR
    importer.write(
        event("good", hour),
        "{no json",
        event("no time", hour, timestamp="yesterday"),
        event("no tenant", hour, tenant=None),
        event("no type", hour, type="wave"),
        event("far away", hour, timestamp="9999-12-31T00:00:00Z"),
    )
    code, out, err = importer.start("--received-at", "timestamp", "--json")
    found = json.loads(out)
    assert code == 1
    assert (found["accepted"], found["rejected"], found["bad_lines"]) == (1, 1, 4)
    for number in (2, 3, 4, 6):
        assert f"line {number}:" in err
    quarantined = conn.execute("SELECT message_id, code, received_at FROM queue.quarantine").fetchall()
    assert quarantined == [("no type", "unknown_type", hour)]
    counted = funnel_of(conn)
    assert (counted.numbers.received, counted.numbers.rejected, counted.balanced) == (2, 1, True)
    assert audit(conn).differences == []


def test_events_of_the_future_are_left_out(importer: Importer, conn: Conn) -> None:
    importer.write(event("tomorrow", this_hour() + 24 * _HOUR), event("now", this_hour()))
    found = importer.run(exit_code=1)
    assert (found["accepted"], found["in_future"]) == (1, 1)


def test_without_a_message_id_the_place_is_the_identity(importer: Importer, conn: Conn) -> None:
    hour = this_hour() - _HOUR
    twin = {name: value for name, value in event("", hour).items() if name != "messageId"}
    importer.write(twin, twin)
    importer.run()
    importer.run()
    assert count(conn, "SELECT count(DISTINCT event_id) FROM queue.events") == 2


def test_a_dry_run_writes_nothing(importer: Importer, conn: Conn) -> None:
    importer.write(*many(2, 2))
    found = importer.run("--dry-run")
    assert [hour["events"] for hour in found["hours"]] == [2, 2]
    for table in ("control.imports", "control.tenants", "queue.hours", "queue.batches"):
        assert count(conn, f"SELECT count(*) FROM {table}") == 0


def test_standard_input_may_be_gzip(importer: Importer, conn: Conn) -> None:
    lines = "\n".join(json.dumps(item) for item in many(1, 3)).encode()
    assert importer.run(stdin=gzip.compress(lines))["accepted"] == 3
    importer.file.write_bytes(lines)
    assert importer.run()["already_imported"] == 3


def test_a_missing_file_is_wrong_usage(importer: Importer) -> None:
    code, _, err = importer.start()
    assert code == 2
    assert "no file" in err


@pytest.mark.skipif(not _DATA.exists(), reason=f"the real events are not there: {_DATA}")
def test_real_history_fills_the_retained_hours(importer: Importer, conn: Conn, settings: Settings) -> None:
    importer.file.write_bytes(_DATA.read_bytes())
    found = importer.run("--shift-to-now", exit_code=1)
    past = sum(part["events"] for part in found["past_retention"])
    assert found["accepted"] + past == 10_000
    assert len(found["hours"]) >= 72
    assert past > 0
    drain(settings)
    counted = funnel_of(conn)
    assert counted.numbers.delivered == found["accepted"]
    assert len(counted.hours) == len(found["hours"])
    assert len(counted.tenants) == 11
    assert audit(conn).differences == []


def test_a_line_with_a_name_that_no_tenant_can_have_costs_itself_alone(importer: Importer, conn: Conn) -> None:
    good = {"type": "track", "event": "E", "userId": "u", "timestamp": this_hour().isoformat()}
    names: list[Any] = ["x" * 3_000, "a\x00b", " ", "a\nb", None]
    importer.write(*[good | {"tenant": name, "messageId": str(name)[:9]} for name in [*names, "t", 4711]])
    found = importer.run(exit_code=1)
    assert (found["accepted"], found["bad_lines"]) == (2, len(names))
    assert [name for (name,) in conn.execute("SELECT name FROM control.tenants ORDER BY name")] == ["4711", "t"]


@pytest.mark.parametrize("damage", ["cut", "followed"])
def test_nothing_of_a_damaged_file_is_imported(importer: Importer, conn: Conn, damage: str) -> None:
    event = {"type": "track", "event": "E", "userId": "u", "timestamp": this_hour().isoformat(), "tenant": "t"}
    packed = gzip.compress("".join(json.dumps(event | {"n": number}) + "\n" for number in range(100)).encode())
    importer.file.write_bytes(packed[:-20] if damage == "cut" else packed + b"nonsense")
    code, _, err = importer.start("--received-at", "timestamp")
    assert code == 1
    assert "nothing was imported" in " ".join(err.split())
    assert conn.execute("SELECT count(*) FROM queue.batches").fetchone() == (0,)
