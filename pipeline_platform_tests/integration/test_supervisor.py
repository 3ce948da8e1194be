"""The supervised platform: it starts again what is killed, stops in order, and leaves nothing behind."""

import os
import signal
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from pipeline_platform.errors import ConfigError, ServiceError
from pipeline_platform.local.services import connected, process
from pipeline_platform.local.services.home_files import HomeLock
from pipeline_platform.local.supervisor import children as children_module
from pipeline_platform.local.supervisor.children import Child, Children
from pipeline_platform.local.supervisor.programs import answers, program
from pipeline_platform.local.supervisor.run import down, up
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.processes import processes_in
from pipeline_platform_tests.support.supervised import endpoints_of, ready, supervised
from pipeline_platform_tests.support.waiting import wait_for


def settings_in(home: Path, **more: Any) -> Settings:
    return Settings(home=home, gateway_port=0, console_port=0, dagster_port=0, workers=1, **more)


def open_to_others(home: Path) -> list[str]:
    """What others may read or list under a home. The server's account passes directories, and a socket's guards it."""
    forbidden = {stat.S_IFDIR: 0o066, stat.S_IFREG: 0o077}
    found: list[str] = []
    for directory, names, files in os.walk(home):
        # PostgreSQL's own directory is closed, and its files come and go.
        names[:] = [name for name in names if name != "data"]
        for path in (Path(directory), *(Path(directory) / name for name in files)):
            with suppress(FileNotFoundError):
                mode = path.lstat().st_mode
                if mode & forbidden.get(stat.S_IFMT(mode), 0):
                    found.append(f"{path} {stat.filemode(mode)}")
    return found


def test_whatever_is_killed_is_started_again_at_the_same_addresses(home: Path) -> None:
    with supervised(home):
        before = endpoints_of(home)
        for victim in ("postgres", "redis", "gateway", "workers", "console"):
            pid = before.pids[victim]
            psutil.Process(pid).kill()
            wait_for(f"another {victim}", lambda name=victim, old=pid: endpoints_of(home).pids.get(name, old) != old)
        wait_for("the gateway to serve again", partial(ready, home))
        wait_for("the pool to be ready again", (home / "pool.ready").exists)
        assert open_to_others(home) == []
        assert (home / "postgres" / "data").stat().st_mode & 0o077 == 0
        wait_for("the console to serve again", lambda: answers(f"{before.console}/healthz"))
        after = endpoints_of(home)
        assert (after.gateway, after.console, after.database_url, after.redis_url) == (
            before.gateway,
            before.console,
            before.database_url,
            before.redis_url,
        )
        with psycopg.connect(after.database_url) as conn:
            assert conn.execute("SELECT count(*) > 0 FROM public.pipeline_migrations").fetchone() == (True,)


def test_an_interrupt_stops_everything_in_order(home: Path) -> None:
    with supervised(home) as supervisor:
        assert stat.S_IMODE((home / "endpoints.json").stat().st_mode) == 0o600
        assert connected(Settings(home=home)).database_url == endpoints_of(home).database_url
        supervisor.send_signal(signal.SIGINT)
        assert supervisor.wait(60) == 0
        assert not processes_in(home)
        assert not (home / "endpoints.json").exists()
    assert "database system is shut down" in (home / "logs" / "postgres.log").read_text()


def test_a_killed_platform_starts_again_at_once_and_leaves_nothing_behind(home: Path) -> None:
    with supervised(home) as first:
        first.kill()
        first.wait()
        with supervised(home) as second:
            assert ready(home)
            second.kill()
            second.wait()
            wait_for("every process to end", lambda: not processes_in(home), 60)


def test_a_home_has_one_platform_and_down_ends_it(home: Path) -> None:
    with supervised(home) as supervisor:
        with pytest.raises(ConfigError, match=f"in use by process {supervisor.pid}: stop it"):
            up(settings_in(home), dagster=False)
        assert down(Settings(home=home)) == 0
        assert supervisor.wait(10) == 0
        assert not processes_in(home)
    assert down(Settings(home=home)) == 0


def test_a_detached_platform_on_servers_of_the_users_own_serves_when_up_returns(settings: Settings) -> None:
    home = settings.home
    try:
        assert up(settings, detach=True, dagster=False) == 0
        assert ready(home)
        assert endpoints_of(home).pids.keys() == {"supervisor", "gateway", "workers", "mirror", "console", "alerts"}
        assert endpoints_of(home).database_url == settings.database_url
    finally:
        down(Settings(home=home))
    assert not processes_in(home)


def test_up_detached_says_why_it_does_not_start(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with HomeLock(home / "up.lock"):
        assert up(settings_in(home), detach=True, dagster=False) == 2
    assert f"in use by process {os.getpid()}" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["gateway", "console", "dagster"])
def test_a_taken_port_is_named_with_the_option_that_changes_it(home: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(
            home=home, **{"gateway_port": 0, "console_port": 0, "dagster_port": 0, f"{name}_port": port}
        )
        with pytest.raises(
            ConfigError, match=rf"port {port} .* the {name} .*--{name}-port .*PIPELINE_{name.upper()}_PORT"
        ):
            up(settings)
    assert not processes_in(home)


def test_no_platform_is_said_with_the_command_that_starts_one(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"no platform runs in .*pipeline-platform up"):
        connected(Settings(home=home))


def child_of(home: Path, name: str, code: str, ready: Callable[[], bool] = lambda: True) -> Child:
    (home / f"{name}.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(home)}
    return Child(name, home / "logs" / f"{name}.log", partial(program, home, name, [name], environment), ready)


_OBEDIENT = """
import pathlib, signal, sys
def stop(*_):
    with open("stopped", "a") as file:
        file.write(pathlib.Path(__file__).stem + "\\n")
    sys.exit()
signal.signal(signal.SIGTERM, stop)
pathlib.Path(pathlib.Path(__file__).stem + ".started").touch()
while True:
    signal.pause()
"""


def test_later_tiers_stop_first(home: Path) -> None:
    children = Children(lambda _name, _seconds: None)
    for name in ("first", "second", "third"):
        children.start(child_of(home, name, _OBEDIENT, (home / f"{name}.started").exists))
    children.stop()
    assert (home / "stopped").read_text().split() == ["third", "second", "first"]


def test_a_child_that_cannot_start_is_an_error_with_the_end_of_its_log(home: Path) -> None:
    children = Children(lambda _name, _seconds: None)
    with pytest.raises(ServiceError, match=r"(?s)broken ended with 1 while starting.*no such luck"):
        children.start(child_of(home, "broken", "raise SystemExit('no such luck')", lambda: False))
    children.stop()


def test_a_child_with_a_wrong_configuration_is_tried_once(home: Path) -> None:
    children = Children(lambda _name, _seconds: None)
    wrong = "import sys; open('tries', 'a').write('x'); sys.exit(2)"
    with pytest.raises(ConfigError, match="wrong cannot run like this"):
        children.start(child_of(home, "wrong", wrong, lambda: False))
    assert (home / "tries").read_text() == "x"


def test_a_child_that_ends_again_and_again_is_started_more_and_more_slowly(home: Path) -> None:
    children = Children(lambda _name, _seconds: None)
    children.start(child_of(home, "mortal", "import time; open('t', 'a').write(f'{time.time()}\\n')"))
    tries = home / "t"
    children.watch(lambda: None, lambda: tries.exists() and len(tries.read_text().split()) >= 4)
    children.stop()
    at = [float(line) for line in tries.read_text().split()]
    waits = [later - earlier for earlier, later in pairwise(at)]
    assert waits[0] < waits[1] < waits[2]


def test_a_child_that_stays_stopped_is_killed_and_started_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children_module, "_STOPPED_S", 0.1)
    monkeypatch.setattr(children_module, "_LOOK_EVERY_S", 0.05)
    children = Children(lambda _name, _seconds: None)
    children.start(child_of(home, "frozen", _OBEDIENT, (home / "frozen.started").exists))
    before = children.pids()["frozen"]
    os.kill(before, signal.SIGSTOP)
    children.watch(lambda: None, lambda: children.pids().get("frozen", before) != before)
    children.stop()


def test_a_log_is_rotated_while_it_is_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LOG_BYTES_MAX", 10_000)
    chatty = "import itertools, time\nfor n in itertools.count(): print(n, '.' * 200, flush=True); time.sleep(0.001)"
    children = Children(lambda _name, _seconds: None)
    child = child_of(home, "chatty", chatty)
    children.start(child)
    log, aside = child.log, child.log.with_name(f"{child.log.name}.1")
    wait_for("a large log", lambda: log.exists() and log.stat().st_size > 20_000)
    children.watch(lambda: None, aside.exists)
    wait_for("new lines", lambda: log.stat().st_size > 0)
    children.stop()
    assert log.stat().st_mode & 0o077 == aside.stat().st_mode & 0o077 == 0
    assert not log.read_bytes().startswith(b"\0")
    numbers = [int(line.split()[0]) for line in (aside.read_text() + log.read_text()).splitlines() if "." in line]
    assert numbers == sorted(numbers) and numbers[0] == 0 and len(numbers) > numbers[-1] - 5


def test_a_child_that_does_not_obey_is_killed_with_all_it_started(home: Path) -> None:
    deaf = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"])
pathlib.Path("deaf.started").touch()
time.sleep(600)
"""
    children = Children(lambda _name, _seconds: None)
    child = child_of(home, "deaf", deaf, (home / "deaf.started").exists)
    running = child.start()
    wait_for("it to run", child.ready)
    assert len(processes_in(home)) == 2
    impatient = type(running)(running.process, running.stop_signal, stop_grace_s=0.1)  # pyright: ignore
    impatient.stop()
    wait_for("both to be gone", lambda: not processes_in(home))
    children.stop()
