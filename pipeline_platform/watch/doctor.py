"""Diagnoses a platform: independent checks, each with a remedy.

They work whether all, some or none of its processes run. A check that fails is itself a finding. Findings that explain
others come first: a full disk, a supervisor that has ended, a server that cannot be used.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import redis

from pipeline_platform import schema
from pipeline_platform.db import connect
from pipeline_platform.disk import room_under
from pipeline_platform.errors import ConfigError, UnfitServerError
from pipeline_platform.local.services.endpoints import Endpoints, connected, read_endpoints
from pipeline_platform.local.services.prerequisites import Finding, findings_of_server, remedy_of
from pipeline_platform.local.services.process import log_tail
from pipeline_platform.settings import Settings
from pipeline_platform.watch.health import Conn, counted_in, one

_OLD_TRANSACTION_S = 60.0
_ANSWER_S = 5.0
_REDIS_S = 2.0
_LATELY = timedelta(hours=1)
# At the beginning of a line of PostgreSQL, of Dagster, or of ours as text or JSON. Redis writes another form, and its
# lines count as written when its log was.
_TIME = re.compile(r"^.{0,15}?(?P<time>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:[.,]\d+)?(?P<utc> UTC| [+]0000|Z)?")
_NO_SPACE = os.strerror(28)
_UP = "pipeline-platform up"


def diagnose(settings: Settings) -> list[Finding]:
    """All findings, those that explain others first. settings: as read from the configuration; nothing needs to run."""
    findings = [
        *_seen("disk", lambda: _disk(settings)),
        *_seen("logs", lambda: _full_by_its_logs(settings.home)),
    ]
    try:
        endpoints = read_endpoints(settings.home)
        settings = connected(settings)
    except ConfigError as error:
        return [*findings, Finding("platform", False, str(error), _UP)]
    if endpoints is None:
        findings.append(Finding("platform", True, "not started here; PIPELINE_DATABASE_URL names the database"))
    else:
        findings.append(_supervisor(endpoints))
        findings += _services(settings, endpoints)
        findings += _seen("workers", lambda: [_workers(settings)])
    findings.append(_redis(settings))
    return [*findings, *_database(settings)]


def _seen(name: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of `look`, or one that says why a file or disk cannot be looked at."""
    try:
        return list(look())
    except OSError as error:
        what = f"{error.filename} " if error.filename else ""
        return [Finding(name, False, f"{what}cannot be looked at: {error.strerror}", "see PIPELINE_HOME")]


def _disk(settings: Settings) -> Iterator[Finding]:
    room, least = room_under(settings.home), settings.disk_free_bytes_min
    place, free = room.place, room.free
    is_enough = free >= least
    why = "" if is_enough else f": below {least / (1 << 30):.1f} GiB the gateway takes no events"
    remedy = "free space, move the home, or lower PIPELINE_DISK_FREE_BYTES_MIN"
    yield Finding("disk", is_enough, f"{free / (1 << 30):.1f} GiB free under {place}{why}", remedy)
    inodes = os.statvfs(place)
    if inodes.f_files and not inodes.f_favail:
        yield Finding("inodes", False, f"no file can be made under {place}", "remove files, or move the home")


def _full_by_its_logs(home: Path) -> Iterator[Finding]:
    """Full disks that logs told of lately: of PostgreSQL's own disk, or before space was freed."""
    for log in sorted((home / "logs").glob("*.log")):
        yield from _seen("logs", lambda log=log: _full_by_its_log(log))


def _full_by_its_log(log: Path) -> Iterator[Finding]:
    at, said, since = datetime.fromtimestamp(log.stat().st_mtime, UTC), "", datetime.now(UTC) - _LATELY
    for line in log_tail(log).splitlines():
        # A line without a time continues the one before it.
        at = _time_of(line) or at
        if _NO_SPACE in line and at >= since:
            said = line.strip()
    if said:
        yield Finding("logs", False, f"{log.name}: {said}", f"free space, then: {_UP}")


def _time_of(line: str) -> datetime | None:
    found = _TIME.search(line)
    if found is None:
        return None
    try:
        at = datetime.fromisoformat(found["time"])
    except ValueError:
        return None
    # Our logs in text have local times.
    return at.replace(tzinfo=UTC) if found["utc"] else at.astimezone()


def _supervisor(endpoints: Endpoints) -> Finding:
    pid = endpoints.pids.get("supervisor")
    if pid is None or psutil.pid_exists(pid):
        return Finding("platform", True, f"supervised by process {pid}" if pid else "started")
    return Finding("platform", False, f"its supervisor, process {pid}, is gone", _UP)


def _services(settings: Settings, endpoints: Endpoints) -> Iterator[Finding]:
    logs = settings.home / "logs"
    yield _gateway(endpoints, logs)
    for name, url in (("console", endpoints.console), ("dagster", endpoints.dagster)):
        log = logs / ("dagster-web.log" if name == "dagster" else f"{name}.log")
        if url is None:
            yield Finding(name, True, "not started here")
        else:
            path = "server_info" if name == "dagster" else "healthz"
            yield _answering(name, f"{url}/{path}", f"see {log}; restart: {_UP}")


def _workers(settings: Settings) -> Finding:
    ready = (settings.home / "pool.ready").exists()
    found = "ready" if ready else "not ready"
    return Finding("workers", ready, found, f"see {settings.home / 'logs' / 'workers.log'}; restart: {_UP}")


def _gateway(endpoints: Endpoints, logs: Path) -> Finding:
    try:
        answer = httpx.get(f"{endpoints.gateway}/readyz", timeout=_ANSWER_S, trust_env=False)
        missing = "; ".join(answer.json()["missing"])
    except (httpx.TransportError, ValueError, KeyError, TypeError) as error:
        found = f"does not answer at {endpoints.gateway} ({type(error).__name__})"
        return Finding("gateway", False, found, f"see {logs / 'gateway.log'}; restart: {_UP}")
    found = f"answers, and takes no events: {missing}" if missing else "answers"
    return Finding("gateway", answer.is_success, found, "correct what it names; it then continues")


def _answering(name: str, url: str, remedy: str) -> Finding:
    try:
        answer = httpx.get(url, timeout=_ANSWER_S, trust_env=False)
    except httpx.TransportError as error:
        return Finding(name, False, f"does not answer at {url} ({type(error).__name__})", remedy)
    return Finding(name, answer.is_success, "answers" if answer.is_success else f"answers {answer.status_code}", remedy)


def _redis(settings: Settings) -> Finding:
    times = {"socket_timeout": _REDIS_S, "socket_connect_timeout": _REDIS_S}
    try:
        with redis.Redis.from_url(settings.redis_url, **times) as client:  # pyright: ignore[reportUnknownMemberType]
            client.ping()  # pyright: ignore[reportUnknownMemberType]
    except (redis.RedisError, ValueError) as error:
        found = f"cannot be used ({error}): look-ups read PostgreSQL, and are slower"
        return Finding("redis", False, found, "see PIPELINE_REDIS_URL, or home/logs/redis.log")
    return Finding("redis", True, "answers")


def _database(settings: Settings) -> list[Finding]:
    try:
        conn = connect(settings.database_url, "doctor", statement_timeout_s=_ANSWER_S, lock_timeout_s=_ANSWER_S)
    except UnfitServerError as error:
        return [Finding("postgresql", False, str(error), "correct what it names; running processes then continue")]
    except psycopg.Error as error:
        found = f"does not answer: {' '.join(str(error).split())}"
        return [Finding("postgresql", False, found, "start it; an embedded one: see home/logs/postgres.log")]
    with conn:
        parts: dict[str, Callable[[], list[Finding]]] = {
            "server": lambda: findings_of_server(conn, settings),
            "migrations": lambda: _migrations(conn),
            "queue": lambda: _waiting(counted_in(conn)),
            "old transactions": lambda: _transactions(conn),
        }
        findings = [Finding("postgresql", True, "answers")]
        for name, look in parts.items():
            findings += _looked(conn, name, look)
        return findings


def _looked(conn: Conn, name: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return look()
    except psycopg.Error as error:
        said = str(error.diag.message_primary or error).strip()
        return [Finding(name, False, f"cannot be looked at: {said}", remedy_of(error, conn.info.user))]


def _migrations(conn: Conn) -> list[Finding]:
    missing = schema.missing(conn)
    found = f"missing: {', '.join(missing)}" if missing else "all applied"
    return [Finding("migrations", not missing, found, "pipeline-platform migrate")]


def _waiting(found: dict[str, Any]) -> list[Finding]:
    hours, letters, queue, circuit = (found[part] for part in ("hours", "dead_letters", "queue", "circuit"))
    return [
        Finding("partitions", hours["ahead"] > 0, f"{hours['ahead']} hours ahead", "start the workers: they open them"),
        Finding(
            "sealing", hours["unsealed_past"] == 0, f"{hours['unsealed_past']} past hours unsealed", "wait for imports"
        ),
        Finding(
            "suspects",
            queue["suspects"] == 0,
            f"{queue['suspects']} pieces of work crashed a worker",
            "see home/logs/workers.log",
        ),
        Finding(
            "circuit",
            not circuit["is_open"],
            f"open, {circuit['waiting']:,} events wait: {circuit['message']}" if circuit["is_open"] else "closed",
            "correct the cause, then: pipeline-platform circuit close --reason …",
        ),
        Finding(
            "dead letters",
            letters["exhausted"] == 0,
            f"{letters['waiting']} waiting, {letters['exhausted']} exhausted",
            "pipeline-platform dead-letters list --state exhausted",
        ),
    ]


def _transactions(conn: Conn) -> list[Finding]:
    oldest = one(conn, "oldest_transaction")
    return [
        Finding(
            "old transactions",
            oldest["age_s"] < _OLD_TRANSACTION_S,
            f"the oldest is {oldest['age_s']:.0f} s old",
            "end it: see pg_stat_activity, pg_terminate_backend",
        )
    ]
