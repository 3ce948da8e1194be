"""The embedded servers start, survive a kill, share no home and leave nothing behind."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from pipeline_platform.errors import ConfigError, ServiceError
from pipeline_platform.local.services import Server, start_postgres, start_redis
from pipeline_platform_tests.support.processes import processes_in
from pipeline_platform_tests.support.waiting import wait_for

_OWNER = """
import sys
from pathlib import Path
from pipeline_platform.local.services import start_postgres, start_redis
home = Path(sys.argv[1])
servers = [start_postgres(home, shared_buffers="32MB"), start_redis(home)]
print(*(server.process.pid for server in servers), *(server.url for server in servers), flush=True)
sys.stdin.read()
for server in reversed(servers):
    server.stop()
"""


def start(home: Path) -> Server:
    return start_postgres(home, shared_buffers="32MB", max_wal_size="256MB")


def owner_of(home: Path) -> tuple[subprocess.Popen[str], list[int], list[str]]:
    """A process with both servers: itself, their pids, their URLs."""
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    words = owner.stdout.readline().split()
    return owner, [int(word) for word in words[:2]], words[2:]


def test_postgres_is_durable_bounded_and_in_utc(home: Path) -> None:
    with start(home) as server, psycopg.connect(server.url) as conn:
        shown = {
            name: conn.execute(f"SHOW {name}").fetchone()[0]  # pyright: ignore
            for name in (
                "fsync",
                "synchronous_commit",
                "track_commit_timestamp",
                "timezone",
                "jit",
                "listen_addresses",
            )
        }
        databases = {name for (name,) in conn.execute("SELECT datname FROM pg_database")}
    assert shown == {
        "fsync": "on",
        "synchronous_commit": "on",
        "track_commit_timestamp": "on",
        "timezone": "UTC",
        "jit": "off",
        "listen_addresses": "127.0.0.1",
    }
    assert databases >= {"pipeline", "dagster"}


def test_what_was_committed_is_there_after_a_restart_at_the_same_url(home: Path) -> None:
    with start(home) as server, psycopg.connect(server.url, autocommit=True) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        first = server.url
    with start(home) as server, psycopg.connect(server.url) as conn:
        assert server.url == first
        assert conn.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_secrets_are_readable_by_their_owner_only(home: Path) -> None:
    with start(home), start_redis(home):
        for path in (
            home / "postgres" / "password",
            home / "redis" / "password",
            home / "redis" / "redis.conf",
        ):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE((home / "postgres" / "data").stat().st_mode) == 0o700


def test_nobody_gets_in_without_the_password(home: Path) -> None:
    with start(home) as postgres, start_redis(home) as cache:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(postgres.url.replace("postgres:", "postgres:x", 1))
        at = redis.connection.parse_url(cache.url)
        with redis.Redis(port=at["port"]) as client, pytest.raises(redis.AuthenticationError):
            client.ping()


def test_both_answer_on_sockets_that_only_their_owner_reaches(home: Path) -> None:
    with start(home) as postgres, start_redis(home) as cache:
        with psycopg.connect(postgres.socket_url) as conn:
            assert conn.execute("SELECT inet_server_addr()").fetchone() == (None,)
        with redis.Redis.from_url(cache.socket_url) as client:
            assert client.ping()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(postgres.socket_url.replace("postgres:", "postgres:x", 1))
        first = [postgres.socket_url, cache.socket_url]
    # A process that was killed leaves its socket, and a lock that names another process by now.
    for left in (home / "postgres" / "data" / ".s.PGSQL.1.lock", home / "redis" / "sockets" / "redis"):
        left.write_text(f"{os.getpid()}\n")
    with start(home) as postgres, start_redis(home) as cache:
        assert [postgres.socket_url, cache.socket_url] == first
        psycopg.connect(postgres.socket_url).close()


def test_a_home_too_deep_for_sockets_is_served_on_loopback(home: Path) -> None:
    deep = home / ("d" * 100)
    with start(deep) as postgres, start_redis(deep) as cache:
        assert [postgres.socket_url, cache.socket_url] == [postgres.url, cache.url]


def test_redis_keeps_nothing_and_evicts(home: Path) -> None:
    with start_redis(home) as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "volatile-lru"}
        assert client.config_get("save") == {"save": ""}
        first = server.url
    with start_redis(home) as server, redis.Redis.from_url(server.url) as client:
        assert server.url == first
        assert client.get("key") is None
    assert not list((home / "redis").glob("*.rdb"))


@pytest.mark.parametrize("starter", [start, start_redis])
def test_a_home_has_one_owner_and_the_error_names_it(home: Path, starter: Callable[[Path], Server]) -> None:
    with starter(home), pytest.raises(ConfigError, match=f"in use by process {os.getpid()}: stop it .*down"):
        starter(home)
    starter(home).stop()


def test_the_servers_end_when_their_owner_is_killed_and_start_again(home: Path) -> None:
    owner, pids, urls = owner_of(home)
    with psycopg.connect(urls[0], autocommit=True) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    owner.kill()
    owner.wait()
    # At once, while the servers of the killed owner are still ending.
    with start(home) as postgres, start_redis(home) as cache, psycopg.connect(postgres.url) as conn:
        assert conn.execute("SELECT answer FROM kept").fetchone() == (42,)
        assert [postgres.url, cache.url] == urls
        assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not processes_in(home)


def test_nothing_is_left_behind_when_the_owner_is_killed(home: Path) -> None:
    owner, _, _ = owner_of(home)
    assert processes_in(home)
    owner.kill()
    owner.wait()
    wait_for("the servers to end", lambda: not processes_in(home))


@pytest.mark.parametrize("victim", ["postmaster", "all"])
def test_postgres_recovers_from_its_own_kill(home: Path, victim: str) -> None:
    with start(home) as server, psycopg.connect(server.url, autocommit=True) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        backends = psutil.Process(server.process.pid).children() if victim == "all" else []
        for process in (psutil.Process(server.process.pid), *backends):
            process.kill()
        server.process.wait()
    with start(home) as server, psycopg.connect(server.url) as conn:
        assert conn.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_a_stale_pid_file_that_names_another_process_does_not_keep_postgres_from_starting(home: Path) -> None:
    start(home).stop()
    pid_file = home / "postgres" / "data" / "postmaster.pid"
    pid_file.write_text(f"{os.getppid()}\n{pid_file.parent}\n1700000000\n1\n\n127.0.0.1\n  1  1\nready   \n")
    start(home).stop()


def test_an_initdb_cut_short_is_done_again(home: Path) -> None:
    unfinished = home / "postgres" / "data.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    start(home).stop()


def test_a_home_deeper_than_a_socket_path_may_be(home: Path) -> None:
    deep = home / ("d" * 100) / ("e" * 100)
    with start(deep) as server, psycopg.connect(server.url) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_a_home_with_every_kind_of_letter_in_its_name(home: Path) -> None:
    odd = home / "a 'b' \"c\" ü 日本, \\d #e %f"
    with start(odd) as server, start_redis(odd) as cache:
        for url in (server.url, server.socket_url):
            with psycopg.connect(url) as conn:
                assert conn.execute("SELECT 1").fetchone() == (1,)
        for url in (cache.url, cache.socket_url):
            with redis.Redis.from_url(url) as client:
                assert client.ping()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts servers as another user")
def test_a_home_closed_to_others_is_opened_for_passing_only(home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    start(closed / "inner").stop()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o701


def test_a_server_that_cannot_start_says_why(home: Path) -> None:
    start(home).stop()
    (home / "postgres" / "data" / "postgresql.auto.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(ServiceError, match=r"(?s)postgres\.log.*no_such_setting"):
        start(home)
    assert not processes_in(home)


def test_a_terminal_interrupt_reaches_only_the_owner(home: Path) -> None:
    with start(home) as server:
        assert os.getsid(server.process.pid) == server.process.pid
        os.kill(server.process.pid, signal.SIGHUP)
        with psycopg.connect(server.url) as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)


def test_without_a_word_postgres_takes_a_quarter_of_the_memory_within_bounds(home: Path) -> None:
    with start_postgres(home) as server, psycopg.connect(server.url) as conn:
        row = conn.execute("SELECT pg_size_bytes(current_setting('shared_buffers'))").fetchone()
    assert row
    assert 128 << 20 <= row[0] <= 4 << 30
    assert row[0] <= max(128 << 20, psutil.virtual_memory().total // 4)
