"""The health of a running platform: what answers, what waits, and what a doctor would say."""

import shutil
from dataclasses import asdict, dataclass
from typing import Any

import httpx
import psycopg
import redis
from psycopg.rows import dict_row

from pipeline_platform.db import connect, missing_migrations, queries
from pipeline_platform.operate.circuit import circuit_state
from pipeline_platform.services.endpoints import Endpoints
from pipeline_platform.settings import Settings

_SQL = queries("status")
_OLD_TRANSACTION_S = 60.0
Conn = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was found, and what to do where it is not well."""

    check: str
    well: bool
    found: str
    remedy: str = ""


def status_of(settings: Settings, endpoints: Endpoints | None) -> dict[str, Any]:
    """What answers and what waits; `healthy` is false where something that should answer does not."""
    parts = {
        "gateway": _http(f"{endpoints.gateway}/readyz") if endpoints else None,
        "dagster": _http(f"{endpoints.dagster}/server_info") if endpoints and endpoints.dagster else None,
        "workers": (settings.home / "pool.ready").exists() if endpoints else None,
        "redis": _redis(settings.redis_url),
    }
    try:
        with connect(settings.database_url, "status") as conn:
            counted = {
                "queue": _one(conn, "queue"),
                "hours": _one(conn, "hours"),
                "dead_letters": _one(conn, "dead_letters"),
                "circuit": asdict(circuit_state(conn)),
                "alerts": _all(conn, "alerts"),
            }
    except psycopg.OperationalError:
        counted = {}
    services = parts | {"postgresql": bool(counted)}
    return {"healthy": all(answer is not False for answer in services.values()), "services": services, **counted}


def findings_of(settings: Settings, endpoints: Endpoints | None) -> list[Finding]:
    """The doctor's checks, each with its remedy."""
    found = status_of(settings, endpoints)
    findings = [
        Finding(
            name, answer is not False, _said(answer), f"look at {settings.home}/logs; restart: pipeline-platform up"
        )
        for name, answer in found["services"].items()
    ]
    free = shutil.disk_usage(settings.home if settings.home.exists() else ".").free
    findings.append(
        Finding(
            "disk",
            free > settings.disk_free_bytes_min,
            f"{free / (1 << 30):.1f} GiB free",
            "free space or move the home",
        )
    )
    if found["services"]["postgresql"]:
        findings += _database_findings(settings, found)
    return findings


def _database_findings(settings: Settings, found: dict[str, Any]) -> list[Finding]:
    with connect(settings.database_url, "doctor") as conn:
        server, oldest = _one(conn, "server"), _one(conn, "oldest_transaction")
        missing = missing_migrations(conn)
    durable = server["fsync"] == "on" and server["synchronous_commit"] != "off"
    hours, letters, queue, circuit = (found[part] for part in ("hours", "dead_letters", "queue", "circuit"))
    return [
        Finding(
            "migrations",
            not missing,
            f"missing: {', '.join(missing)}" if missing else "all applied",
            "pipeline-platform migrate",
        ),
        Finding("durability", durable, f"PostgreSQL {server['version']}, fsync {server['fsync']}", "set fsync = on"),
        Finding("partitions", hours["ahead"] > 0, f"{hours['ahead']} hours ahead", "start the workers: they open them"),
        Finding(
            "sealing", hours["unsealed_past"] == 0, f"{hours['unsealed_past']} past hours unsealed", "wait for imports"
        ),
        Finding(
            "suspects", queue["suspects"] == 0, f"{queue['suspects']} pieces of work crashed a worker", "see pool.log"
        ),
        Finding(
            "circuit",
            not circuit["is_open"],
            f"open, {circuit['waiting']:,} events wait: {circuit['message']}" if circuit["is_open"] else "closed",
            "mend the cause, then: pipeline-platform circuit close --reason …",
        ),
        Finding(
            "dead letters",
            letters["exhausted"] == 0,
            f"{letters['waiting']} waiting, {letters['exhausted']} exhausted",
            "pipeline-platform dead-letters list --state exhausted",
        ),
        Finding(
            "old transactions",
            oldest["age_s"] < _OLD_TRANSACTION_S,
            f"the oldest is {oldest['age_s']:.0f} s old",
            "end it: see pg_stat_activity, pg_terminate_backend",
        ),
    ]


def _said(answer: bool | None) -> str:
    return {True: "answers", False: "does not answer", None: "not started here"}[answer]


def _http(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5.0).is_success
    except httpx.TransportError:
        return False


def _redis(url: str) -> bool:
    with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:  # pyright: ignore[reportUnknownMemberType]
        try:
            return bool(client.ping())  # pyright: ignore[reportUnknownMemberType]
        except redis.RedisError:
            return False


def _one(conn: Conn, query: str) -> dict[str, Any]:
    return _all(conn, query)[0]


def _all(conn: Conn, query: str) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL[query]).fetchall()
