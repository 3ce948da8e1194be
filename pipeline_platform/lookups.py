"""Cached reads of what is known of tenants, users and groups.

Read-through: one MGET a batch, one query for all misses, entries live `lookup_ttl_s` with jitter. PostgreSQL is the
truth: Redis slow, down, flushed or holding nonsense changes speed, never a result. While Redis fails it is left alone
for a moment, so that a batch waits for it once, not for every key.
"""

import random
import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import psycopg
import redis

from pipeline_platform import arrays
from pipeline_platform.db import queries
from pipeline_platform.settings import Settings

_SQL = queries("lookups")
_REST_S = 2.0
_FLIGHT_MS = 250
_FLIGHT_WAIT_S = 0.02
# Marks a cached value as ours: anything else under the key is a miss.
_MARK = b"1:"

Kind = Literal["tenant", "user", "group"]


class Key(NamedTuple):
    """What is looked up; `subject_id` is empty for a tenant."""

    kind: Kind
    tenant_id: int
    subject_id: str = ""

    @property
    def cache_key(self) -> str:
        return f"lookup:{self.kind}:{self.tenant_id}:{self.subject_id}"


class Lookups:
    """The cached reads of one worker. Not for use by several threads."""

    def __init__(self, settings: Settings, redis_url: str) -> None:
        wait_s = settings.redis_timeout_ms / 1000
        self._ttl_s = settings.lookup_ttl_s
        self._redis: redis.Redis = redis.Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
            redis_url, socket_timeout=wait_s, socket_connect_timeout=wait_s, retry=None, protocol=2
        )
        self._rest_until = 0.0
        # Keys that Redis knew, and that PostgreSQL was asked for.
        self.hits = 0
        self.misses = 0

    def close(self) -> None:
        self._redis.close()

    def get(self, conn: psycopg.Connection[Any], keys: Iterable[Key]) -> dict[Key, bytes]:
        """The JSON object known of each key; an empty object's bytes (``b""``) where nothing is known."""
        wanted = list(dict.fromkeys(keys))
        found = self._cached(wanted)
        missing = [key for key in wanted if key not in found]
        if missing:
            missing, landed = self._await_flights(missing)
            found |= landed
            read = _read(conn, missing)
            self._store(read)
            found |= read
        self.hits += len(wanted) - len(missing)
        self.misses += len(missing)
        return found

    def forget(self, keys: Sequence[Key]) -> None:
        """Drop keys whose truth has just been changed."""
        if keys and self._rested():
            self._try(lambda: self._redis.delete(*[key.cache_key for key in keys]))

    def _rested(self) -> bool:
        return time.monotonic() >= self._rest_until

    def _try(self, command: Any) -> Any:
        try:
            return command()
        except redis.ResponseError:
            # A key of another type: as good as absent, and Redis itself is well.
            return None
        except (redis.RedisError, OSError):
            self._rest_until = time.monotonic() + _REST_S
            self._redis.connection_pool.disconnect()
            return None

    def _cached(self, keys: Sequence[Key]) -> dict[Key, bytes]:
        if not keys or not self._rested():
            return {}
        values: list[Any] = self._try(lambda: self._redis.mget([key.cache_key for key in keys])) or []
        return {
            key: value[len(_MARK) :]
            for key, value in zip(keys, values, strict=False)
            if isinstance(value, bytes) and value.startswith(_MARK)
        }

    def _await_flights(self, missing: list[Key]) -> tuple[list[Key], dict[Key, bytes]]:
        """Single flight over processes: who sets the flag reads; the others wait a moment for the result."""
        if not self._rested():
            return missing, {}

        def take_off() -> list[Any]:
            pipe = self._redis.pipeline(transaction=False)  # pyright: ignore[reportUnknownMemberType]
            for key in missing:
                pipe.set(f"flight:{key.cache_key}", 1, nx=True, px=_FLIGHT_MS)
            return pipe.execute()

        flights: list[Any] | None = self._try(take_off)
        if flights is None:
            return missing, {}
        others = [key for key, mine in zip(missing, flights, strict=True) if not mine]
        if not others:
            return missing, {}
        time.sleep(_FLIGHT_WAIT_S)
        landed = self._cached(others)
        return [key for key in missing if key not in landed], landed

    def _store(self, read: dict[Key, bytes]) -> None:
        if not read or not self._rested():
            return

        def store() -> None:
            pipe = self._redis.pipeline(transaction=False)  # pyright: ignore[reportUnknownMemberType]
            for key, value in read.items():
                ttl_ms = int(self._ttl_s * 1000 * random.uniform(0.8, 1.0))  # noqa: S311
                pipe.set(key.cache_key, _MARK + value, px=ttl_ms)
                pipe.delete(f"flight:{key.cache_key}")
            pipe.execute()

        self._try(store)


def _read(conn: psycopg.Connection[Any], keys: Sequence[Key]) -> dict[Key, bytes]:
    if not keys:
        return {}
    params = {
        "kind": arrays.texts([key.kind for key in keys]),
        "tenant_id": arrays.int4s([key.tenant_id for key in keys]),
        "subject_id": arrays.texts([key.subject_id for key in keys]),
    }
    rows = conn.execute(_SQL["known"], params, prepare=True)
    return {Key(kind, tenant_id, subject_id): known.encode() for kind, tenant_id, subject_id, known in rows}
