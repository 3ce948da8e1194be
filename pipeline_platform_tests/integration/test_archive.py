"""Hours beyond the retention: in a verified file before they are dropped, and back again with the account exact."""

import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import psycopg
import pyarrow.parquet
import pytest
from fsspec.implementations.local import LocalFileSystem

from pipeline_platform.account.audit import audit
from pipeline_platform.account.funnel import funnel_of
from pipeline_platform.archive import files
from pipeline_platform.archive.hours import archive_hours, due_hours, list_archives, restore, verify
from pipeline_platform.db import connect
from pipeline_platform.erasure.erase import erase
from pipeline_platform.errors import ConfigError, NoSuchThingError, PipelineError
from pipeline_platform.event.types import TenantId
from pipeline_platform.queue.keeper import drop_old_hours, seal_due_hours
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.everything import places_of
from pipeline_platform_tests.support.planting import past_hours, plant
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]
_CONTENT = """
SELECT batch_id, received_at, lane, events, tenant_ids, event_ids, client_ats, types, lengths, epoch FROM queue.batches
ORDER BY batch_id
"""


class World:
    """Two past hours with events of two tenants, processed, sealed and past their retention."""

    def __init__(self, conn: Conn, settings: Settings, place: str) -> None:
        self.conn = conn
        self.settings = settings.model_copy(update={"archive_url": place})
        self.tenant = add_tenant(conn, "acme").tenant_id
        self.hours = past_hours(2)
        for hour in self.hours:
            plant(conn, self.tenant, hour, 40, rejected=1)
            plant(conn, add_tenant(conn, f"zeta-{hour}").tenant_id, hour, 3)
        self.again(self.hours[0])
        self.drain()
        seal_due_hours(conn)
        conn.execute("UPDATE queue.hours SET sealed_at = now() - interval '100 hours' WHERE sealed_at IS NOT NULL")

    def again(self, hour: datetime) -> None:
        """The same events a second time: duplicates."""
        plant(self.conn, self.tenant, hour, 2)

    def drain(self) -> None:
        drain(self.settings)

    def archive(self, *hours: datetime) -> list[str | None]:
        with connect(self.settings.database_url, "archive", statement_timeout_s=0) as conn:
            return [
                one.error for one in archive_hours(conn, self.settings, list(hours) or due_hours(conn, self.settings))
            ]

    def restore(self, hour: datetime) -> int:
        with connect(self.settings.database_url, "archive", statement_timeout_s=0) as conn:
            return restore(conn, hour, "a test")

    def drop(self) -> dict[str, str]:
        return drop_old_hours(self.conn, timedelta(hours=72), archived_only=True)

    def numbers(self) -> Any:
        found = audit(self.conn)
        assert found.differences == []
        return funnel_of(self.conn).numbers

    def content(self) -> list[Any]:
        return self.conn.execute(_CONTENT).fetchall()


@pytest.fixture
def world(conn: Conn, settings: Settings, tmp_path: Path) -> Iterator[World]:
    yield World(conn, settings, str(tmp_path / "archive"))


def address_of(world: World) -> Path:
    return Path(list_archives(world.conn)[0]["address"])


def test_no_hour_is_dropped_before_it_is_archived(world: World) -> None:
    assert list(world.drop().values()) == [f"hour {at:%Y-%m-%d %H:%M:%S+00} is not archived" for at in world.hours]
    assert world.archive() == [None, None]
    assert world.archive() == []
    assert world.drop() == {}
    assert [row["is_kept"] for row in list_archives(world.conn)] == [False, False]
    assert [row["events"] for row in list_archives(world.conn)] == [45, 43]


def test_a_file_says_in_its_rows_what_was_accepted(world: World) -> None:
    world.archive()
    table: Any = pyarrow.parquet.read_table(address_of(world))  # pyright: ignore[reportUnknownMemberType]
    rows = table.to_pylist()
    assert {row["tenant"] for row in rows} == {"acme", f"zeta-{world.hours[0]}"}
    assert json.loads(rows[0]["payload"])["userId"] == "u1"
    assert world.hours[0] <= rows[0]["received_at"] < world.hours[1]


def test_a_restored_hour_is_what_it_was_and_the_account_too(world: World) -> None:
    before, content = world.numbers(), world.content()
    world.archive()
    world.drop()
    assert world.content() == []
    for hour in world.hours:
        world.restore(hour)
    assert world.content() == content
    assert world.numbers() == before
    assert world.conn.execute("SELECT count(*) FROM queue.work").fetchone() == (0,)
    # Kept for another retention, then dropped with the same archive.
    assert world.drop() == {}
    assert len(world.content()) == len(content)
    world.conn.execute("UPDATE queue.hours SET sealed_at = now() - interval '100 hours' WHERE sealed_at IS NOT NULL")
    assert world.archive() == []
    world.drop()
    assert world.content() == []


def test_a_restored_hour_keeps_bytes_and_imported_times(world: World) -> None:
    world.conn.execute(
        "UPDATE queue.batches SET received_ats = ARRAY(SELECT received_at + n * interval '1 ms'"
        ' FROM generate_series(1, events) AS n), envelopes = ARRAY[\'{"sentAt":"2026"}\'::bytea],'
        " envelope_of = ARRAY(SELECT n % 2 FROM generate_series(1, events) AS n)"
    )
    world.archive()
    before = list(files.read(str(address_of(world))))
    assert {event.envelope for event in before} == {b"", b'{"sentAt":"2026"}'}
    world.drop()
    world.restore(world.hours[0])
    world.conn.execute("UPDATE queue.hours SET seals = seals + 1")
    assert world.archive(world.hours[0]) == [None]
    assert list(files.read(str(address_of(world)))) == before


def test_an_hour_that_was_imported_into_since_is_archived_anew(world: World) -> None:
    world.archive()
    first = world.hours[0]
    world.conn.execute("SELECT queue.reopen_hour(%s)", (first,))
    plant(world.conn, world.tenant, first, 5, name="late")
    world.drain()
    seal_due_hours(world.conn)
    world.conn.execute("UPDATE queue.hours SET sealed_at = now() - interval '100 hours' WHERE sealed_at IS NOT NULL")
    assert first.isoformat() in world.drop()
    assert world.archive() == [None]
    assert list_archives(world.conn, first)[0]["events"] == 50


def test_a_failing_archive_keeps_the_hour_and_alerts(world: World, tmp_path: Path) -> None:
    (tmp_path / "archive").write_text("no directory")
    assert all(world.archive())
    assert len(world.drop()) == 2
    open_alerts = "SELECT count(*) FROM control.alerts WHERE kind = 'archive_failed' AND resolved_at IS NULL"
    assert world.conn.execute(open_alerts).fetchone() == (2,)
    (tmp_path / "archive").unlink()
    assert world.archive() == [None, None]
    assert world.conn.execute(open_alerts).fetchone() == (0,)


def test_a_damaged_file_is_named_and_restores_nothing(world: World) -> None:
    world.archive()
    world.drop()
    damaged = bytearray(address_of(world).read_bytes())
    damaged[100] ^= 1
    address_of(world).write_bytes(damaged)
    assert [bool(one.error) for one in verify(world.conn)] == [True, False]
    with pytest.raises(PipelineError, match="is not the file that was archived"):
        world.restore(world.hours[0])
    address_of(world).unlink()
    assert "FileNotFoundError" in str(verify(world.conn, world.hours[0])[0].error)


def test_what_cannot_be_restored_says_why(world: World) -> None:
    with pytest.raises(NoSuchThingError, match="in no archive"):
        world.restore(world.hours[0])
    world.archive()
    with pytest.raises(PipelineError, match="still kept"):
        world.restore(world.hours[0])


def test_any_address_of_fsspec_will_do(conn: Conn, settings: Settings) -> None:
    world = World(conn, settings, "memory://archive")
    content = world.content()
    assert world.archive() == [None, None]
    world.drop()
    assert [world.restore(hour) for hour in world.hours] == [45, 43]
    assert world.content() == content


def test_the_commands(world: World) -> None:
    assert run_command(world.settings, "archive", "run").code == 2
    place = {"archive_url": world.settings.archive_url}
    dry = run_command(world.settings, "archive", "run", "--dry-run", "--json", **place)
    assert (len(dry.answer["hours"]), dry.answer["archived"]) == (2, [])
    done = run_command(world.settings, "archive", "run", "--json", **place)
    assert [one["events"] for one in done.answer["archived"]] == [45, 43]
    assert run_command(world.settings, "archive", "verify").code == 0
    world.drop()
    hour = world.hours[0].isoformat()
    assert run_command(world.settings, "archive", "restore", hour).code == 2
    restored = run_command(world.settings, "archive", "restore", hour, "--reason", "test", "--json")
    assert restored.answer["events"] == 45
    assert [one["is_kept"] for one in run_command(world.settings, "archive", "list", "--json").answer["archives"]] == [
        True,
        False,
    ]


@pytest.mark.parametrize("point", ["archive.before_note", "archive.mid_restore"])
def test_killed_it_is_run_again(world: World, point: str) -> None:
    before, content = world.numbers(), world.content()
    place = {"archive_url": world.settings.archive_url}
    words = ["archive", "run"]
    if point == "archive.mid_restore":
        world.archive()
        world.drop()
        words = ["archive", "restore", world.hours[0].isoformat(), "--reason", "test"]
    assert run_command(world.settings, *words, kill_point=point, **place).code == -9
    audit(world.conn)
    assert run_command(world.settings, *words, **place).code == 0
    if point == "archive.mid_restore":
        world.restore(world.hours[1])
    assert world.content() == content
    assert world.numbers() == before


@pytest.mark.parametrize("is_dropped", [True, False])
def test_an_erased_person_is_in_no_file_and_comes_back_with_no_hour(world: World, is_dropped: bool) -> None:
    world.archive()
    if is_dropped:
        world.drop()
    assert b"u1" in b"".join(event.payload for event in files.read(str(address_of(world))))
    found = erase(world.settings, "acme", "u1", "request 1")
    assert (found.changed["archived"], found.changed["archive_files"]) == (82, 2)
    assert found.outcomes == {"delivered": 80, "duplicate": 2}
    mine = [event for event in files.read(str(address_of(world))) if event.tenant_id == world.tenant]
    assert len(mine) == 42
    assert {(event.payload, event.envelope) for event in mine} == {(b"", b"")}
    assert [one.error for one in verify(world.conn)] == [None, None]
    if is_dropped:
        assert funnel_of(world.conn).balanced
        for hour in world.hours:
            world.restore(hour)
    assert (world.numbers().discarded, world.numbers().delivered) == (80, 6)
    others = world.conn.execute("SELECT count(*) FROM analytics.events WHERE tenant_id <> %s", (world.tenant,))
    assert others.fetchone() == (6,)
    world.conn.execute("DELETE FROM analytics.events WHERE tenant_id <> %s", (world.tenant,))
    assert not [
        place for place in places_of(world.conn, world.settings.redis_url, '"userId": "u1"') if "queue" not in place
    ]


def test_archives_are_off_without_an_address(world: World) -> None:
    with pytest.raises(ConfigError, match="PIPELINE_ARCHIVE_URL"):
        archive_hours(world.conn, world.settings.model_copy(update={"archive_url": ""}), world.hours)
    assert drop_old_hours(world.conn, timedelta(hours=72)) == {}


def test_tenants_of_one_hour_do_not_see_each_other(world: World) -> None:
    world.archive()
    assert {event.tenant_id for event in files.read_tenant(str(address_of(world)), world.tenant)} == {
        TenantId(world.tenant)
    }


def _mine(world: World, path: Path) -> bytes:
    return b"".join(event.payload for event in files.read_tenant(str(path), world.tenant))


def _all_files(tmp_path: Path) -> list[Path]:
    return [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_archive_that_waits_for_a_drop_overwrites_nothing(world: World, settings: Settings) -> None:
    world.archive()
    hour, said = world.hours[0], list[Any]()
    with psycopg.connect(settings.database_url) as dropper:
        dropper.execute("SELECT queue.drop_archived_hour(%s, '72 hours')", (hour,))
        thread = threading.Thread(target=lambda: said.extend(world.archive(hour)))
        thread.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_for("the archive to wait", lambda: world.conn.execute(waiting).fetchone() != (0,))
        dropper.commit()
    thread.join(30)
    assert said == [None]
    assert list_archives(world.conn, hour)[0]["events"] == files.weigh(str(address_of(world))).events == 45
    assert world.restore(hour) == 45


@pytest.mark.parametrize("point", ["erase.before_archive_note", "erase.after_archive_note:2"])
def test_an_erasure_killed_around_its_record_is_finished_by_the_next(world: World, tmp_path: Path, point: str) -> None:
    world.archive()
    world.drop()
    words = ("erase", "--tenant", "acme", "--user", "u1", "--reason", "request 1")
    place = {"archive_url": world.settings.archive_url}
    assert run_command(world.settings, *words, kill_point=point, **place).code == -9
    assert [one.error for one in verify(world.conn)] == [None, None]
    assert run_command(world.settings, *words, **place).code == 0
    assert [one.error for one in verify(world.conn)] == [None, None]
    assert len(_all_files(tmp_path / "archive")) == 2
    assert b"u1" not in b"".join(_mine(world, path) for path in _all_files(tmp_path / "archive"))
    assert [world.restore(hour) for hour in world.hours] == [45, 43]
    assert world.numbers().discarded == 80


def test_a_damaged_file_is_not_made_good_by_an_erasure(world: World) -> None:
    world.archive()
    world.drop()
    path = address_of(world)
    table: Any = pyarrow.parquet.read_table(path)  # pyright: ignore[reportUnknownMemberType]
    pyarrow.parquet.write_table(table.slice(1), path)  # pyright: ignore[reportUnknownMemberType]
    with pytest.raises(PipelineError, match="is not the file that was archived"):
        erase(world.settings, "acme", "u1", "request 1")
    assert verify(world.conn)[0].error


@pytest.mark.parametrize("archived_before", [True, False])
def test_what_a_killed_archive_left_is_erased_too(world: World, tmp_path: Path, archived_before: bool) -> None:
    if archived_before:
        world.archive()
    events = list(files.read(str(address_of(world)))) if archived_before else []
    left = tmp_path / "archive" / f"{world.hours[0]:%Y/%m/%d/%H}.unfinished"
    left.parent.mkdir(parents=True, exist_ok=True)
    written = files.write(str(tmp_path / "elsewhere"), events, {})
    Path(written.address).rename(left)
    erase(world.settings, "acme", "u1", "request 1")
    assert not left.exists()
    assert b"u1" not in b"".join(_mine(world, path) for path in _all_files(tmp_path / "archive"))


def test_an_archive_at_a_new_address_leaves_none_at_the_old_one(world: World, tmp_path: Path) -> None:
    world.archive()
    old = address_of(world)
    world.settings = world.settings.model_copy(update={"archive_url": str(tmp_path / "second")})
    assert world.archive(world.hours[0]) == [None]
    assert address_of(world) != old and not old.exists()


def test_a_relative_address_is_the_same_for_every_process(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    world.settings = world.settings.model_copy(update={"archive_url": "here"})
    world.archive()
    monkeypatch.chdir("/")
    assert [one.error for one in verify(world.conn)] == [None, None]


def test_whatever_a_store_raises_is_an_alert_and_the_next_hour_is_tried(world: World, tmp_path: Path) -> None:
    class OddError(Exception):
        pass

    class OddFiles(LocalFileSystem):
        protocol = "odd"

        def makedirs(self, path: str, exist_ok: bool = False) -> None:
            raise OddError("no credentials")

    fsspec.register_implementation("odd", OddFiles, clobber=True)  # pyright: ignore
    world.settings = world.settings.model_copy(update={"archive_url": f"odd://{tmp_path}/x"})
    assert ["OddError: no credentials" in str(error) for error in world.archive()] == [True, True]


def test_an_hour_that_was_archived_and_dropped_meanwhile_is_no_failure(world: World) -> None:
    world.archive()
    world.drop()
    assert world.archive(*world.hours) == [None, None]
    assert world.conn.execute("SELECT count(*) FROM control.alerts").fetchone() == (0,)
