"""A home that cannot be used is refused before anything is written; a full disk is outlived, not died of."""

import os
import pwd
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

from pipeline_platform import schema
from pipeline_platform.errors import ConfigError
from pipeline_platform.local.services import home_files, read_endpoints
from pipeline_platform.local.services.home_files import HomeLock, lock_owner, usable_home
from pipeline_platform.local.supervisor.children import Child, Children, Program
from pipeline_platform.local.supervisor.programs import Embedded, program
from pipeline_platform.local.supervisor.run import look_at_redis, up
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.disks import fill, make_room, small_disk
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.words import all_commands, run_here

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
_NOBODY = 65_534


@contextmanager
def another_user() -> Iterator[None]:
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@as_root
def test_a_home_of_another_user_is_named_with_its_owner_and_the_command(home: Path) -> None:
    mine = home / "mine"
    mine.mkdir()
    os.chown(mine, _NOBODY, _NOBODY)
    home.chmod(0o755)
    with pytest.raises(ConfigError, match=r"belongs to nobody, and this is root: .*sudo chown -R root .*/mine"):
        usable_home(mine)
    assert not list(mine.iterdir())
    with another_user():
        assert usable_home(mine) == mine.resolve()
    (mine / "postgres").mkdir()
    with another_user(), pytest.raises(ConfigError, match=r"mine/postgres belongs to root, and this is nobody"):
        usable_home(mine)
    os.chown(mine, 0, 0)
    with another_user(), pytest.raises(ConfigError, match="belongs to root and cannot be written by nobody"):
        usable_home(mine)


@as_root
def test_what_the_servers_own_account_has_in_a_home_of_root_is_ours(home: Path) -> None:
    user = home_files.service_user()
    assert user
    (home / "postgres" / "data").mkdir(parents=True)
    os.chown(home / "postgres" / "data", user.pw_uid, user.pw_gid)
    assert usable_home(home) == home.resolve()


def test_a_home_that_cannot_be_made_says_why(home: Path) -> None:
    (home / "file").touch()
    (home / "loop").symlink_to(home / "loop")
    for place in ("file", "file/inner", "loop", "d" * 300):
        with pytest.raises(ConfigError, match="PIPELINE_HOME"):
            usable_home(home / place)
    with pytest.raises(ConfigError, match="PIPELINE_HOME"):
        usable_home(Path("/proc/nowhere"))
    with pytest.raises(ConfigError, match="PIPELINE_HOME"):
        read_endpoints(home / "file")


def test_a_home_on_a_disk_that_cannot_be_written_says_so() -> None:
    with small_disk(1) as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(ConfigError, match="cannot be written"):
            usable_home(disk)


def test_a_relative_home_with_spaces_and_letters_of_others(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    assert usable_home(Path("a b/ü 日本")) == (home / "a b" / "ü 日本").resolve()


def test_up_on_a_disk_with_too_little_room_says_so_at_once(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"MB of free space.*PIPELINE_DISK_FREE_BYTES_MIN"):
        up(Settings(home=home, disk_free_bytes_min=1 << 60))
    assert not list(home.iterdir())


def test_a_lock_that_cannot_be_written_is_free_again() -> None:
    with small_disk(1) as disk:
        HomeLock(disk / "held").release()
        fill(disk)
        with HomeLock(disk / "held"):
            assert lock_owner(disk / "held") == os.getpid()
        assert lock_owner(disk / "held") is None
        with pytest.raises(OSError, match="No space left"):
            HomeLock(disk / "new")
        make_room(disk)
        HomeLock(disk / "new").release()


def test_a_server_that_dies_while_the_disk_is_full_is_started_again() -> None:
    with small_disk(8) as disk:
        server = Embedded("redis", disk)
        children = Children(lambda _name, _seconds: None)
        children.start(server.child)
        fill(disk)
        with redis.Redis.from_url(server.url) as client:
            client.shutdown(nosave=True, now=True, force=True)
        told: list[str] = []
        children.watch(lambda: told.append("told"), lambda: bool(told))
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
        children.stop()


def test_a_child_that_cannot_be_started_on_a_full_disk_is_started_when_there_is_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with small_disk(1) as disk:

        def start() -> Program:
            (disk / "configuration").write_bytes(bytes(10_000))
            return program(disk, "mortal", ["this"], os.environ)

        def changed() -> None:
            (disk / "endpoints").write_bytes(bytes(10_000))
            told.append("told")

        def is_over() -> bool:
            if "does not start" in caplog.text and (disk / "ballast").exists():
                make_room(disk)
            return bool(told)

        told: list[str] = []
        children = Children(lambda _name, _seconds: None)
        children.start(Child("mortal", disk / "logs" / "mortal.log", start))
        (disk / "configuration").unlink()
        fill(disk)
        children.watch(changed, is_over)
        assert "No space left" in caplog.text
        children.stop()


def test_a_migration_that_waits_says_for_what(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with (
        ThreadPoolExecutor() as threads,
        psycopg.connect(database_url, autocommit=True) as other,
    ):
        other.execute("SELECT pg_advisory_lock(hashtext('pipeline_platform.migrate'))")
        waiting = threads.submit(schema.migrate, database_url)
        wait_for("it to say so", lambda: "another migration" in caplog.text)
        other.execute("SELECT pg_advisory_unlock(hashtext('pipeline_platform.migrate'))")
        assert waiting.result() == []


@as_root
def test_the_account_of_the_servers_is_made_whatever_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"pg{uuid.uuid4().hex[:12]}"
    monkeypatch.setattr(home_files, "_ACCOUNT", name)
    monkeypatch.setenv("PATH", "/nowhere")
    try:
        found = home_files.service_user()
        assert found == pwd.getpwnam(name)
    finally:
        subprocess.run(["/usr/sbin/userdel", name], check=False, capture_output=True)


def test_a_redis_that_refuses_is_no_green_tick(settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    look_at_redis(settings.redis_url)
    assert not capfd.readouterr().err
    for url in (settings.redis_url.replace("redis://:", "redis://:wr0ng-marker"), "redis://127.0.0.1:1/0"):
        look_at_redis(url)
        said = capfd.readouterr().err
        assert "✗ redis refuses or does not answer" in said
        assert "wr0ng-marker" not in said


_MARKER = "s3cr3t-marker"
_LONG_RUNNING = {("demo",), ("bench",)}
_LOOKING = {("up",), ("status",), ("doctor",), ("alerts", "test")}


@pytest.mark.parametrize(
    ("settings_given", "everywhere"),
    [
        ({"database_url": f"mysql://u:{_MARKER}@127.0.0.1/x"}, True),
        ({"database_url": f"postgresql://u:a/{_MARKER}@127.0.0.1/x"}, False),
        ({"database_url": f"postgresql://u:a@{_MARKER}@127.0.0.1/x"}, False),
        ({"database_url": f"postgresql://u:{_MARKER}@127.0.0.1:1/x"}, False),
        ({"database_url": f"postgresql://u:a#{_MARKER}@127.0.0.1:1/x"}, False),
        ({"redis_url": f"http://:{_MARKER}@127.0.0.1:1"}, False),
        ({"redis_url": f"redis://:a/{_MARKER}@127.0.0.1:1"}, False),
        ({"redis_url": f"redis://:a@{_MARKER}@127.0.0.1:1"}, False),
        ({"lane_shares": f"{_MARKER}"}, False),
        ({"alert_urls": f"nonsense://{_MARKER}"}, False),
        ({"console_token": _MARKER, "workers": "none"}, False),
    ],
    ids=str,
)
def test_no_secret_is_in_what_a_wrong_setting_makes_a_command_say(
    settings: Settings, settings_given: dict[str, str], everywhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_HOME", str(settings.home))
    monkeypatch.setenv("PIPELINE_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("PIPELINE_REDIS_URL", settings.redis_url)
    # `up` ends before it starts anything.
    monkeypatch.setenv("PIPELINE_DISK_FREE_BYTES_MIN", str(1 << 60))
    for name, value in settings_given.items():
        monkeypatch.setenv(f"PIPELINE_{name.upper()}", value)
    for command in all_commands():
        if any(parameter.is_required for parameter in command.parameters) or command.path in _LONG_RUNNING:
            continue
        if everywhere or command.path in _LOOKING:
            ended = run_here(*command.path)
            assert ended.code in (0, 1, 2)
            assert _MARKER not in ended.said
    for log in settings.home.rglob("*.log"):
        assert _MARKER not in log.read_text()
