"""A server that cannot be used is named with its remedy: at the start, by `/readyz` while running, and by `doctor`."""

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pipeline_platform import db
from pipeline_platform.disk import room_under
from pipeline_platform.errors import UnfitServerError
from pipeline_platform.local.services import home_files, process
from pipeline_platform.local.supervisor.programs import answers
from pipeline_platform.settings import Settings
from pipeline_platform.watch.alerts.catalogue import Kind
from pipeline_platform.watch.alerts.conditions import CONDITIONS
from pipeline_platform.watch.doctor import diagnose
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.gateway import Gateway, GatewayProcess, event
from pipeline_platform_tests.support.servers import OwnServer, fresh_database, own_postgres
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]
_OLD = Path("/usr/lib/postgresql/15/bin")


def doctor(settings: Settings, **more: str) -> dict[str, dict[str, Any]]:
    """Its findings by their names, in its order."""
    done = run_command(settings, "doctor", "--json", **more)
    assert done.answer["well"] == (done.code == 0)
    return {finding["check"]: finding for finding in done.answer["findings"]}


def missing(gateway: GatewayProcess | Gateway) -> str:
    """What `/readyz` says is missing."""
    url = gateway.url if isinstance(gateway, GatewayProcess) else gateway.process.url
    return "; ".join(httpx.get(f"{url}/readyz").json()["missing"])


@pytest.fixture(scope="module")
def old_server() -> Iterator[str]:
    """The URL of a real PostgreSQL 15."""
    if not (_OLD / "initdb").exists():
        said = "no PostgreSQL 15: that an old server is refused is NOT tested; apt-get install postgresql-15"
        warnings.warn(said, stacklevel=1)
        pytest.skip(said)
    user = home_files.service_user()
    room = Path("/tmp") / f"pipeline-old-{os.getpid()}"
    room.mkdir()
    home_files.own(room, user, 0o700)
    run_as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    command = [_OLD / "initdb", "-D", room / "data", "-U", "old", "--auth", "trust", "-E", "UTF8", "--locale", "C"]
    subprocess.run([*map(str, command), "--no-sync"], check=True, capture_output=True, cwd=room, **run_as)  # pyright: ignore
    port = process.free_port()
    url = f"postgresql://old@127.0.0.1:{port}/postgres"
    start = [_OLD / "postgres", "-D", room / "data", "-p", str(port), "-k", ""]
    server = process.spawn(start, log=None, cwd=room, env={}, user=user, death_signal=signal.SIGINT)
    try:
        wait_for("PostgreSQL 15", lambda: _answers(url))
        yield url
    finally:
        process.stop(server, signal.SIGINT, 30)
        shutil.rmtree(room)


def _answers(url: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError):
        psycopg.connect(url).close()
        return True
    return False


def test_an_old_server_is_refused_by_every_way_in(old_server: str, settings: Settings) -> None:
    sentence = "15.* and 17 is the oldest that works: upgrade it"
    with pytest.raises(UnfitServerError, match=sentence):
        db.connect(old_server, "test")
    for command in (["migrate"], ["up", "--no-dagster", "--gateway-port", "0", "--console-port", "0"]):
        done = run_command(settings, *command, database_url=old_server)
        assert done.code == 2, done
        assert "17 is the oldest that works" in done.err
        assert "Traceback" not in done.err
    found = doctor(settings, database_url=old_server)
    assert "17 is the oldest" in found["postgresql"]["found"]
    with GatewayProcess(settings.model_copy(update={"database_url": old_server})) as gateway:
        gateway.start(route="/healthz")
        wait_for("the sentence", lambda: "17 is the oldest that works" in missing(gateway))


@pytest.fixture
def server(home: Path) -> Iterator[OwnServer]:
    server = own_postgres(home)
    yield server
    server.stop()


def test_a_server_that_became_a_standby_is_noticed_and_so_is_its_promotion(
    server: OwnServer, settings: Settings
) -> None:
    url = fresh_database(server, "turned")
    own = settings.model_copy(update={"database_url": url})
    with GatewayProcess(own) as gateway:
        gateway.start()
        assert doctor(own)["commits"]["well"]
        server.stop()
        (settings.home / "postgres" / "data" / "standby.signal").touch()
        server.start()
        wait_for("what is missing", lambda: "read-only" in missing(gateway))
        found = doctor(own)
        assert not found["writability"]["well"]
        assert "primary" in found["writability"]["remedy"]
        assert not found["commits"]["well"]
        refused = run_command(own, "migrate")
        assert (refused.code, "name the primary" in refused.said) == (2, True), refused
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("SELECT pg_promote()")
        wait_for("it to be ready again", lambda: httpx.get(f"{gateway.url}/readyz").is_success)


def test_readyz_tells_of_commits_that_fail_while_the_database_answers(gateway: Gateway, conn: Conn) -> None:
    assert missing(gateway) == ""
    conn.execute(
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'out of luck' USING ERRCODE = 'insufficient_privilege'; END $$"
    )
    conn.execute("CREATE TRIGGER refuse BEFORE INSERT ON queue.work EXECUTE FUNCTION public.refuse()")
    assert gateway.batch(event()).status_code == 429
    wait_for("what is missing", lambda: missing(gateway) == "commits: out of luck")
    conn.execute("DROP TRIGGER refuse ON queue.work")
    assert gateway.batch(event()).status_code == 200
    wait_for("it to be ready again", lambda: missing(gateway) == "")


@pytest.fixture
def stranger(database_url: str, conn: Conn, admin: Conn) -> Iterator[str]:
    """The URL of a role that owns nothing."""
    role = sql.Identifier("stranger")
    admin.execute(sql.SQL("DROP ROLE IF EXISTS {0}").format(role))
    admin.execute(sql.SQL("CREATE ROLE {0} LOGIN PASSWORD 'x' CONNECTION LIMIT 20").format(role))
    yield make_conninfo(database_url, user="stranger", password="x")
    conn.execute(sql.SQL("DROP OWNED BY {0}").format(role))
    admin.execute(sql.SQL("DROP ROLE {0}").format(role))


def test_a_role_without_rights_hears_what_to_grant(
    settings: Settings, stranger: str, empty_database_url: str, conn: Conn
) -> None:
    empty = make_conninfo(empty_database_url, user="stranger", password="x")
    refused = run_command(settings, "migrate", database_url=empty)
    assert refused.code == 2
    assert "may not apply the migrations (permission denied for" in refused.said
    assert "OWNER TO" in refused.said
    found = doctor(settings, database_url=stranger)
    assert found["postgresql"]["well"]
    for check in ("rights", "ownership", "connections", "commits"):
        assert not found[check]["well"], check
        assert found[check]["remedy"]
    with GatewayProcess(settings.model_copy(update={"database_url": stranger})) as gateway:
        gateway.start(route="/healthz")
        wait_for("what is missing", lambda: "permission denied" in missing(gateway))


# Nothing runs, or half of it


def test_doctor_names_the_disk_first_while_nothing_runs(settings: Settings) -> None:
    (settings.home / "logs").mkdir()
    (settings.home / "logs" / "postgres.log").write_text("PANIC:  could not write: No space left on device\n")
    nothing = {"database_url": "", "redis_url": ""}
    found = doctor(settings, **nothing, disk_free_bytes_min=str(1 << 60))
    assert list(found) == ["disk", "logs", "platform"]
    assert "the gateway takes no events" in found["disk"]["found"]
    assert "postgres.log: PANIC" in found["logs"]["found"]
    assert "no platform runs" in found["platform"]["found"]
    assert not any(finding["well"] for finding in found.values())


def test_a_full_disk_of_the_past_is_no_finding(settings: Settings) -> None:
    log = settings.home / "logs" / "postgres.log"
    log.parent.mkdir()
    log.write_text("PANIC:  could not write: No space left on device\n")
    endpoints = {"gateway": "http://127.0.0.1:1", "console": "http://127.0.0.1:1", "dagster": None}
    endpoints |= {"database_url": settings.database_url, "redis_url": settings.redis_url}
    (settings.home / "endpoints.json").write_text(json.dumps(endpoints | {"pids": {"supervisor": os.getpid()}}))
    assert "PANIC" in doctor(settings, database_url="", redis_url="")["logs"]["found"]
    log.write_text("2026-01-31 14:00:00.000 UTC [1] PANIC:  could not write: No space left on device\n")
    assert "logs" not in doctor(settings, database_url="", redis_url="")
    log.write_text("PANIC:  could not write: No space left on device\n")
    os.utime(log, (1, 1))
    assert "logs" not in doctor(settings, database_url="", redis_url="")


def test_a_disk_that_cannot_be_looked_at_stops_no_events(settings: Settings) -> None:
    """A home whose path leads through a file has no disk."""
    loop = settings.home / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="symbolic links"):
        room_under(loop)
    here = settings.model_copy(update={"home": loop})
    found = {finding.check: finding for finding in diagnose(here)}
    assert not found["disk"].well
    assert "cannot be looked at" in found["disk"].found
    look = next(each.look for each in CONDITIONS if each.kinds == (Kind.DISK_LOW,))
    with db.connect(settings.database_url, "test") as conn:
        (alert,) = look(conn, here)
        assert "cannot be looked at" in alert.message


def test_doctor_names_what_it_may_not_read(settings: Settings) -> None:
    (settings.home / "logs" / "gateway.log").mkdir(parents=True)
    found = doctor(settings)["logs"]
    assert not found["well"]
    assert "gateway.log cannot be looked at" in found["found"]


def test_doctor_says_of_each_part_what_is_wrong_while_half_of_it_runs(settings: Settings) -> None:
    endpoints = {"gateway": "http://127.0.0.1:1", "console": "http://127.0.0.1:1", "dagster": None}
    endpoints |= {"database_url": "postgresql://postgres@127.0.0.1:1/pipeline", "redis_url": settings.redis_url}
    gone = subprocess.Popen(["true"])
    gone.wait()
    pids = {"supervisor": gone.pid, "postgres": gone.pid}
    (settings.home / "endpoints.json").write_text(json.dumps(endpoints | {"pids": pids}))
    found = doctor(settings, database_url="", redis_url="")
    assert f"process {gone.pid}, is gone" in found["platform"]["found"]
    assert "does not answer" in found["gateway"]["found"]
    assert "does not answer" in found["postgresql"]["found"]
    assert found["redis"]["well"]
    assert found["dagster"]["found"] == "not started here"
    wrong = doctor(settings, database_url=settings.database_url, redis_url="redis://:wrong@127.0.0.1:1/0")
    assert "cannot be used" in wrong["redis"]["found"]
    assert wrong["postgresql"]["well"]


# Poolers


def _without_options(startup: bytes) -> bytes:
    """A startup message whose `options` are gone, as a pooler does that was told to ignore them."""
    words = startup[8:].rstrip(b"\0").split(b"\0")
    pairs = [pair for pair in zip(words[::2], words[1::2], strict=True) if pair[0] != b"options"]
    body = startup[4:8] + b"".join(name + b"\0" + value + b"\0" for name, value in pairs) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def _swallowing(client: socket.socket, startup: bytes, server: socket.socket) -> None:
    server.sendall(_without_options(startup))
    threading.Thread(target=_pump, args=(server, client), daemon=True).start()
    _pump(client, server)


def _refusing(client: socket.socket, startup: bytes, server: socket.socket) -> None:
    del startup, server
    fields = b"SFATAL\0C08P01\0Munsupported startup parameter: options\0\0"
    client.sendall(b"E" + struct.pack("!I", len(fields) + 4) + fields)
    client.close()


def _pump(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := one.recv(65_536):
            other.sendall(piece)
        other.shutdown(socket.SHUT_WR)


@contextmanager
def _pooler(url: str, serve: Callable[[socket.socket, bytes, socket.socket], None]) -> Iterator[str]:
    """A URL that leads to the server of `url` through something that reads the startup message."""
    at = conninfo_to_dict(url)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    length = client.recv(4, socket.MSG_WAITALL)
                    startup = length + client.recv(struct.unpack("!I", length)[0] - 4, socket.MSG_WAITALL)
                    server = socket.create_connection((str(at["host"]), int(str(at["port"]))))
                    threading.Thread(target=serve, args=(client, startup, server), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        port = listener.getsockname()[1]
        yield make_conninfo(url, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")


@pytest.mark.parametrize("kind", [_swallowing, _refusing])
def test_a_pooler_that_does_not_pass_on_what_is_stated_is_refused(
    database_url: str, kind: Callable[[socket.socket, bytes, socket.socket], None]
) -> None:
    with _pooler(database_url, kind) as url, pytest.raises(UnfitServerError, match=r"pooler is between.*itself"):
        db.connect(url, "test")


# The environment


def test_a_proxy_of_the_environment_is_never_on_the_way_to_this_machine(
    gateway: Gateway, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert answers(f"{gateway.process.url}/healthz")
    endpoints = {"gateway": gateway.process.url, "console": None, "dagster": None}
    endpoints |= {"database_url": settings.database_url, "redis_url": settings.redis_url}
    (settings.home / "endpoints.json").write_text(json.dumps(endpoints))
    assert doctor(settings)["gateway"]["well"]
    file = settings.home / "events.ndjson"
    file.write_text(json.dumps(event()) + "\n")
    way = ["--write-key", gateway.key, "--gateway", gateway.process.url]
    sent = run_command(settings, "send", str(file), *way)
    assert "acknowledged 1: accepted 1" in sent.out, sent
