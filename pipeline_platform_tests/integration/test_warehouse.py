"""Exported hours: what a file holds, a new version for every change, nothing half done, nothing of erased people."""

import json
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pyarrow.parquet
import pytest

from pipeline_platform.analytics import rollups
from pipeline_platform.db import connect, queries
from pipeline_platform.erasure.erase import erase
from pipeline_platform.errors import ConfigError, NotNowError, PipelineError
from pipeline_platform.queue.keeper import seal_due_hours
from pipeline_platform.replay import steps
from pipeline_platform.replay.plan import Scope, make_plan
from pipeline_platform.settings import Settings
from pipeline_platform.warehouse.content import NumbersDifferError
from pipeline_platform.warehouse.hours import due_hours, export_hour
from pipeline_platform.warehouse.manifest import read_current
from pipeline_platform.warehouse.versions import Exported, list_versions, remove_replaced, verify
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.planting import past_hours, plant
from pipeline_platform_tests.support.tenants import add_tenants
from pipeline_platform_tests.support.transforms import bad_deploy
from pipeline_platform_tests.support.workers import Workers

Conn = psycopg.Connection[Any]
_HOUR = timedelta(hours=1)


class World:
    """Two past hours with events of two tenants, delivered and sealed, and a place for their exports."""

    def __init__(self, conn: Conn, settings: Settings, workers: Workers, place: str) -> None:
        self.conn, self.workers = conn, workers
        self.settings = settings.model_copy(update={"warehouse_url": place})
        self.place = Path(place)
        self.acme, self.zeta = (tenant.tenant_id for tenant in add_tenants(conn, "acme", "zeta"))
        self.hours = past_hours(2)
        for hour in self.hours:
            plant(conn, self.acme, hour, 40, rejected=1)
            plant(conn, self.zeta, hour, 3, name="z")
        # The same events a second time: duplicates.
        plant(conn, self.acme, self.hours[0], 2)
        self.finish()

    def finish(self) -> None:
        self.workers.drain()
        seal_due_hours(self.conn)

    def due(self) -> list[datetime]:
        return due_hours(self.conn, self.settings)

    def export(self, *hours: datetime) -> list[Exported]:
        with connect(self.settings.database_url, "warehouse", statement_timeout_s=0) as conn:
            return [export_hour(conn, self.settings, hour) for hour in hours or due_hours(conn, self.settings)]

    def directory(self, hour: datetime) -> Path:
        return self.place / f"{hour:%Y/%m/%d/%H}"

    def read(self, hour: datetime) -> "pd.DataFrame":
        """The file that a reader finds by the hour's current.json."""
        current = json.loads((self.directory(hour) / "current.json").read_text())
        return pd.read_parquet(self.directory(hour) / current["file"]["name"])


@pytest.fixture
def world(conn: Conn, settings: Settings, workers: Workers, tmp_path: Path) -> World:
    return World(conn, settings, workers, str(tmp_path / "warehouse"))


def test_a_file_and_its_manifest_say_what_was_delivered(world: World, tmp_path: Path) -> None:
    assert world.due() == world.hours
    assert [(one.version, one.events, one.tenants, one.is_new) for one in world.export()] == [(1, 43, 2, True)] * 2
    hour = world.hours[0]
    found = read_current(str(world.directory(hour)))
    assert (found.hour, found.version, found.replaces, found.events, found.schema_version) == (hour, 1, None, 43, 1)
    assert [(one.tenant, one.events) for one in found.tenants] == [("acme", 40), ("zeta", 3)]
    assert found.code.platform and found.file.name == "v1/events.parquet"
    assert (world.directory(hour) / "v1" / "manifest.json").read_bytes() == (
        world.directory(hour) / "current.json"
    ).read_bytes()
    rows = world.read(hour)
    assert rows.groupby("tenant").size().to_dict() == {"acme": 40, "zeta": 3}
    assert set(rows["tenant_id"]) == {world.acme, world.zeta}
    exported = tmp_path / "acme.parquet"
    window = ("--from", hour.isoformat(), "--to", (hour + _HOUR).isoformat(), "--by", "received")
    done = run_command(
        world.settings, "export", "--tenant", "acme", *window, "--format", "parquet", "-o", str(exported)
    )
    assert done.code == 0, done.err
    streamed: Any = pyarrow.parquet.read_table(exported)  # pyright: ignore[reportUnknownMemberType]
    here: Any = pyarrow.parquet.read_table(world.directory(hour) / "v1" / "events.parquet")  # pyright: ignore[reportUnknownMemberType]
    mine = here.filter(pyarrow.compute.field("tenant") == "acme").drop_columns(["tenant_id", "tenant"])
    assert mine.equals(streamed), "an hour has the values of an export"


def test_an_unchanged_hour_is_read_back_and_not_written(world: World) -> None:
    world.export()
    assert world.due() == []
    files = {path: path.stat().st_mtime_ns for path in world.place.rglob("*") if path.is_file()}
    again = world.export(*world.hours)
    assert [(one.version, one.events, one.tenants, one.is_new) for one in again] == [(1, 43, 2, False)] * 2
    assert {path: path.stat().st_mtime_ns for path in world.place.rglob("*") if path.is_file()} == files


def test_an_hour_without_events_has_no_file(world: World) -> None:
    quiet = past_hours(3)[0]
    assert world.export(quiet) == [Exported(quiet)]
    assert not world.place.exists()


def _late(world: World) -> None:
    world.conn.execute("SELECT queue.reopen_hour(%s)", (world.hours[0],))
    plant(world.conn, world.acme, world.hours[0], 2, name="late")
    world.finish()


def _redelivered(world: World) -> None:
    world.conn.execute("UPDATE queue.dead_letters SET next_attempt_at = now()")
    world.workers.redeliver()


def _replay(world: World) -> int:
    replay = make_plan(world.conn, Scope(world.hours[0], world.hours[0] + _HOUR), "a test").replay_id
    for step in (steps.start_diff, steps.start_commit):
        step(world.conn, replay)
        world.workers.replay()
    return replay


def _replayed(world: World) -> None:
    _replay(world)


def _erased(world: World) -> None:
    world.conn.execute("UPDATE analytics.events SET user_id = 'u2' WHERE received_at < %s AND tenant_id = %s "
                       "AND message_id LIKE '%%-1'", (world.hours[1], world.acme))  # fmt: skip
    erase(world.settings.model_copy(update={"warehouse_url": ""}), "acme", "u2", "request 1")


def _a_wrong_price(world: World) -> None:
    """What a replay is to correct: no mark is left, as by nothing that the platform does."""
    world.conn.execute(
        'UPDATE analytics.events SET properties = \'{"price": "?"}\', digest = NULL WHERE received_at < %s',
        (world.hours[1],),
    )


def _a_dead_letter(world: World) -> None:
    world.conn.execute("SELECT queue.reopen_hour(%s)", (world.hours[0],))
    plant(world.conn, world.acme, world.hours[0], 1, name="dead")
    world.workers.drain(bad_deploy)
    seal_due_hours(world.conn)


@pytest.mark.parametrize(
    ("prepare", "change"),
    [
        (None, _late),
        (_a_dead_letter, _redelivered),
        (_a_wrong_price, _replayed),
        (None, _erased),
    ],
)
def test_whatever_changes_an_hour_makes_a_new_version(
    world: World, prepare: Callable[[World], None] | None, change: Callable[[World], None]
) -> None:
    if prepare:
        prepare(world)
    world.export()
    before = world.read(world.hours[0])
    change(world)
    assert world.due() == world.hours[:1]
    [done] = world.export()
    assert (done.version, done.is_new) == (2, True)
    assert read_current(str(world.directory(world.hours[0]))).replaces == 1
    after = world.read(world.hours[0])
    assert not after.equals(before)
    in_table = world.conn.execute(
        "SELECT count(*) FROM analytics.events WHERE received_at < %s", (world.hours[1],)
    ).fetchone()
    assert in_table == (len(after),)
    assert world.due() == []


@pytest.mark.parametrize("is_exported_between", [True, False])
def test_a_replay_that_was_undone_exports_the_rows_of_before(world: World, is_exported_between: bool) -> None:
    _a_wrong_price(world)
    world.export()
    before = world.read(world.hours[0])
    replay = _replay(world)
    if is_exported_between:
        assert [one.version for one in world.export()] == [2]
    steps.start_undo(world.conn, replay, "a test")
    world.workers.replay()
    assert world.due() == world.hours[:1]
    [done] = world.export()
    assert (done.version, done.is_new) == ((3, True) if is_exported_between else (1, False))
    assert world.read(world.hours[0]).equals(before)
    assert world.due() == []


def test_an_hour_that_is_counted_again_keeps_its_version(world: World) -> None:
    world.export()
    rollups.mark(world.conn, world.hours)
    assert world.due() == world.hours
    assert [(one.version, one.is_new) for one in world.export()] == [(1, False)] * 2
    assert world.due() == []
    assert [row["version"] for row in list_versions(world.conn)] == [1, 1]
    assert len(list(world.place.rglob("*.parquet"))) == 2


def test_versions_that_were_replaced_are_kept_for_a_day(world: World) -> None:
    world.export()
    _late(world)
    world.export()
    assert remove_replaced(world.conn, world.settings) == 0
    assert [row["version"] for row in list_versions(world.conn, world.hours[0])] == [1, 2]
    world.conn.execute("UPDATE control.exports SET published_at = published_at - interval '25 hours'")
    assert remove_replaced(world.conn, world.settings) == 1
    assert [(row["version"], row["is_current"]) for row in list_versions(world.conn, world.hours[0])] == [(2, True)]
    assert not (world.directory(world.hours[0]) / "v1").exists()
    assert len(world.read(world.hours[0])) == 45


def test_hours_past_their_retention_are_removed_and_not_exported_again(world: World) -> None:
    world.export()
    world.settings = world.settings.model_copy(update={"warehouse_days": 1})
    assert remove_replaced(world.conn, world.settings) == 0
    for table, column in (("control.exports", "hour"), ("queue.hours", "hour")):
        world.conn.execute(f"UPDATE {table} SET {column} = {column} - interval '30 hours' WHERE hour < %s",
                           (world.hours[1],))  # fmt: skip
    assert remove_replaced(world.conn, world.settings) == 1
    assert not world.directory(world.hours[0]).exists()
    assert world.due() == []
    assert len(world.read(world.hours[1])) == 43


def test_nothing_of_an_erased_person_is_left_in_any_version(world: World) -> None:
    world.export()
    _late(world)
    world.export()
    assert any(b"u1" in path.read_bytes() for path in world.place.rglob("*.parquet"))
    found = erase(world.settings, "acme", "u1", "request 1")
    assert found.changed["exported_hours"] == 2 and not found.not_ours
    for hour in world.hours:
        assert set(world.read(hour)["tenant"]) == {"zeta"}
    assert [(row["hour"], row["version"]) for row in list_versions(world.conn)] == [
        (world.hours[0], 3),
        (world.hours[1], 2),
    ]
    assert len(list(world.place.rglob("*.parquet"))) == 2
    assert not world.due()


def test_traits_that_an_erasure_strips_are_exported_anew(world: World) -> None:
    """Rows that stay are changed too: what a look-up added of the person."""
    world.export()
    hour = world.hours[1]
    world.conn.execute(
        "UPDATE analytics.events SET user_id = 'u9', user_traits = '{\"email\": \"planted\"}' "
        "WHERE tenant_id = %s AND received_at >= %s",
        (world.zeta, hour),
    )
    world.conn.execute(queries("erasure")["strip_traits"], {"tenant_id": world.zeta, "before": hour, "users": ["u9"]})
    assert world.due() == [hour]


def test_what_an_erasure_cannot_export_anew_is_named(world: World) -> None:
    world.export()
    found = erase(world.settings.model_copy(update={"warehouse_url": ""}), "acme", "u1", "request 1")
    assert found.not_ours == [
        "2 exported hours: exports are off: set PIPELINE_WAREHOUSE_URL and erase again, or remove the files"
    ]


def test_numbers_that_differ_are_not_published(world: World) -> None:
    world.conn.execute(
        "DELETE FROM analytics.events WHERE tenant_id = %s AND message_id LIKE '%%-7' AND received_at < %s",
        (world.acme, world.hours[1]),
    )
    with pytest.raises(NumbersDifferError, match=r"acme: 39 in the file, 39 in analytics.events, 40 delivered"):
        world.export()
    assert not (world.directory(world.hours[0]) / "current.json").exists()
    assert list(world.place.rglob("*.parquet")) == [], "the schedule tries again every hour"
    assert list_versions(world.conn) == []
    assert world.due() == world.hours


def test_an_hour_that_is_not_finished_says_what_to_do(world: World) -> None:
    world.conn.execute("SELECT queue.reopen_hour(%s)", (world.hours[0],))
    with pytest.raises(NotNowError, match="not sealed: materialize delivered_events first"):
        world.export(world.hours[0])
    plant(world.conn, world.acme, world.hours[0], 2, name="late")
    seal_due_hours(world.conn)
    with pytest.raises(NotNowError, match=r"2 events of .* are in flight"):
        world.export(world.hours[0])
    assert world.due() == world.hours[1:]


def test_exports_are_off_without_an_address(world: World) -> None:
    off = world.settings.model_copy(update={"warehouse_url": ""})
    with pytest.raises(ConfigError, match="PIPELINE_WAREHOUSE_URL"):
        export_hour(world.conn, off, world.hours[0])
    assert "PIPELINE_WAREHOUSE_URL" in run_command(off, "warehouse", "run").said


def test_a_place_that_cannot_be_used_is_named_and_nothing_is_published(world: World) -> None:
    world.place.parent.mkdir(exist_ok=True)
    world.place.write_text("no directory")
    with pytest.raises(PipelineError, match=f"{world.place}"):
        world.export()
    world.place.unlink()
    assert [one.version for one in world.export()] == [2, 1], "a number is used once"
    assert len(world.read(world.hours[0])) == 43


@pytest.mark.parametrize("harm", ["cut", "gone", "changed", "no manifest"])
def test_a_damaged_export_is_named_and_replaced(world: World, harm: str) -> None:
    world.export()
    path = world.directory(world.hours[0]) / "v1" / "events.parquet"
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif harm == "gone":
        path.unlink()
    elif harm == "changed":
        content = path.read_bytes()
        path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    else:
        (world.directory(world.hours[0]) / "current.json").write_text("{}")
    with pytest.raises(PipelineError):
        verify(list_versions(world.conn, world.hours[0])[0])
    found = run_command(world.settings, "warehouse", "verify", "--json")
    assert found.code == 1
    assert [bool(one["error"]) for one in found.answer["verified"]] == [True, False]
    assert [(one.version, one.is_new) for one in world.export(world.hours[0])] == [(2, True)]
    assert len(world.read(world.hours[0])) == 43
    assert run_command(world.settings, "warehouse", "verify").code == 0


@pytest.mark.parametrize("point", ["export.after_file", "export.after_current"])
def test_killed_it_leaves_a_whole_version_and_the_next_run_finishes(world: World, point: str) -> None:
    world.export()
    before = world.read(world.hours[0])
    _late(world)
    place = {"warehouse_url": world.settings.warehouse_url}
    assert run_command(world.settings, "warehouse", "run", kill_point=point, **place).code == -9
    seen = world.read(world.hours[0])
    assert len(seen) == (len(before) if point == "export.after_file" else 45)
    done = run_command(world.settings, "warehouse", "run", "--json", **place)
    assert [(one["version"], one["events"]) for one in done.answer["exported"]] == [(3, 45)]
    assert len(world.read(world.hours[0])) == 45
    assert run_command(world.settings, "warehouse", "verify").code == 0


@pytest.mark.parametrize("point", ["export.after_file", "export.after_current"])
def test_what_a_killed_export_left_is_erased_too(world: World, point: str) -> None:
    place = {"warehouse_url": world.settings.warehouse_url}
    assert run_command(world.settings, "warehouse", "run", kill_point=point, **place).code == -9
    assert remove_replaced(world.conn, world.settings) == 0, "somebody may be reading it"
    erase(world.settings, "acme", "u1", "request 1")
    assert [path for path in world.place.rglob("*") if path.is_file()] == []
    assert [one.version for one in world.export()] == [2, 1]


def test_two_exports_at_once_make_one_version(world: World) -> None:
    done: list[Exported] = []
    threads = [threading.Thread(target=lambda: done.extend(world.export(*world.hours))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((one.hour, one.version, one.is_new) for one in done) == sorted(
        (hour, 1, is_new) for hour in world.hours for is_new in (True, False, False)
    )


def test_any_address_of_fsspec_will_do(conn: Conn, settings: Settings, workers: Workers) -> None:
    world = World(conn, settings, workers, "memory://bucket/warehouse")
    assert [one.version for one in world.export()] == [1, 1]
    _late(world)
    assert [one.version for one in world.export()] == [2]
    erase(world.settings, "acme", "u1", "request 1")
    assert [(row["version"], row["events"]) for row in list_versions(conn)] == [(3, 3), (2, 3)]


def test_the_commands(world: World) -> None:
    place = {"warehouse_url": world.settings.warehouse_url}
    assert run_command(world.settings, "warehouse", "list").out.strip() == "no hour is exported"
    dry = run_command(world.settings, "warehouse", "run", "--dry-run", "--json", **place)
    assert len(dry.answer["hours"]) == 2 and not world.place.exists()
    done = run_command(world.settings, "warehouse", "run", "--json", **place)
    assert [one["events"] for one in done.answer["exported"]] == [43, 43]
    assert "nothing to export" in run_command(world.settings, "warehouse", "run", **place).out
    listed = run_command(world.settings, "warehouse", "list", "--json").answer["versions"]
    assert [(one["version"], one["is_current"], one["events"]) for one in listed] == [(1, True, 43)] * 2
    wrong = run_command(world.settings, "warehouse", "run", "--hour", "2026-01-31T14:30", **place)
    assert wrong.code == 2 and "no hour" in wrong.said
