"""The health of a running platform: what answers and what waits. doctor.py finds problems and their remedies."""

from dataclasses import asdict
from typing import Any

import httpx
import psycopg
import redis
from psycopg.rows import dict_row

from pipeline_platform.db import connect, queries
from pipeline_platform.dead_letters.circuit_switch import circuit_state
from pipeline_platform.local.services.endpoints import Endpoints
from pipeline_platform.settings import Settings

_SQL = queries("health")
Conn = psycopg.Connection[Any]


def status_of(settings: Settings, endpoints: Endpoints | None) -> dict[str, Any]:
    """What answers and what waits. `healthy` is false if a part that should answer does not."""
    parts = {
        "gateway": _http(f"{endpoints.gateway}/readyz") if endpoints else None,
        "dagster": _http(f"{endpoints.dagster}/server_info") if endpoints and endpoints.dagster else None,
        "workers": (settings.home / "pool.ready").exists() if endpoints else None,
        "redis": _redis(settings.redis_url),
    }
    try:
        with connect(settings.database_url, "status") as conn:
            counted = counted_in(conn)
    except psycopg.Error:
        counted = {}
    services = parts | {"postgresql": bool(counted)}
    return {"healthy": all(answer is not False for answer in services.values()), "services": services, **counted}


def counted_in(conn: Conn) -> dict[str, Any]:
    """What waits, according to the database."""
    return {
        "queue": one(conn, "queue"),
        "hours": one(conn, "hours"),
        "dead_letters": one(conn, "dead_letters"),
        "circuit": asdict(circuit_state(conn)),
        "alerts": _all(conn, "alerts"),
    }


def _http(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5.0, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _redis(url: str) -> bool:
    with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:  # pyright: ignore[reportUnknownMemberType]
        try:
            return bool(client.ping())  # pyright: ignore[reportUnknownMemberType]
        except redis.RedisError:
            return False


def one(conn: Conn, query: str) -> dict[str, Any]:
    return _all(conn, query)[0]


def _all(conn: Conn, query: str) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL[query]).fetchall()
