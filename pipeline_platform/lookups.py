"""Cached reads of what is known of tenants, users and groups.

Read-through: one MGET for each batch, one query for all misses; entries live for `lookup_ttl_s` with jitter. PostgreSQL
is the source of truth: a Redis that is slow, down, flushed or holds wrong values changes the speed, never a result.
Every value is signed for its key and its time with a secret stored in PostgreSQL, so a value written by anything else
is a miss. After a failure Redis is not asked for a moment, so that a batch waits for it once, not for every key.

For a user or group the newest traits are read, at most `TRAITS_MAX` of them and `TRAITS_BYTES_MAX` together, because
they are copied into every row.
"""

import hashlib
import logging
import math
import os
import random
import struct
import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import psycopg
import redis

from pipeline_platform import arrays
from pipeline_platform.db import queries
from pipeline_platform.settings import Settings

_LOG = logging.getLogger(__name__)
_SQL = queries("lookups")
_REST_S = 2.0
_FLIGHT_MS = 250
_FLIGHT_WAIT_S = 0.02
# A cached value begins with its signature and the second at which it becomes stale.
_SIGNATURE_BYTES = 16
_EXPIRY = struct.Struct("!q")
_HEAD_BYTES = _SIGNATURE_BYTES + _EXPIRY.size
TRAITS_MAX = 256
TRAITS_BYTES_MAX = 8_192

Kind = Literal["tenant", "user", "group"]


class LookupKey(NamedTuple):
    """The key of a look-up; `subject_id` is empty for a tenant."""

    kind: Kind
    tenant_id: int
    subject_id: str = ""

    @property
    def cache_key(self) -> str:
        return f"lookup:{self.kind}:{self.tenant_id}:{self.subject_id}"


class Lookups:
    """The cached reads of one worker. Not thread-safe."""

    def __init__(self, settings: Settings, redis_url: str) -> None:
        wait_s = settings.redis_timeout_ms / 1000
        self._ttl_s = settings.lookup_ttl_s
        self._redis: redis.Redis = redis.Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
            redis_url, socket_timeout=wait_s, socket_connect_timeout=wait_s, retry=None, protocol=2
        )
        self._rest_until = 0.0
        # A hash that includes the secret of this database; None: not read yet.
        self._signer: hashlib.blake2b | None = None
        # Numbers of keys found in Redis, and of keys read from PostgreSQL.
        self.hits = 0
        self.misses = 0
        # Number of traits that were read and not copied, since this number was last taken.
        self.left_out = 0

    def close(self) -> None:
        self._redis.close()

    def get(self, conn: psycopg.Connection[Any], keys: Iterable[LookupKey]) -> dict[LookupKey, bytes]:
        """The JSON object known of each key; empty bytes (``b``) if nothing is known."""
        if self._signer is None:
            self._signer = _signer(conn)
        wanted = list(dict.fromkeys(keys))
        found = self._cached(wanted)
        missing = [key for key in wanted if key not in found]
        if missing:
            missing, landed = self._await_flights(missing)
            found |= landed
            read = self.read(conn, missing)
            self._store(read)
            found |= read
        self.hits += len(wanted) - len(missing)
        self.misses += len(missing)
        return found

    def read(self, conn: psycopg.Connection[Any], keys: Iterable[LookupKey]) -> dict[LookupKey, bytes]:
        """The same from PostgreSQL alone, for a transaction that reads its own writes."""
        wanted = list(dict.fromkeys(keys))
        if not wanted:
            return {}
        found: dict[LookupKey, bytes] = {}
        for kind, tenant_id, subject_id, known, left_out in conn.execute(_SQL["known"], _params(wanted), prepare=True):
            found[LookupKey(kind, tenant_id, subject_id)] = known.encode()
            self.left_out += left_out
        return found

    def read_apart(
        self, conn: psycopg.Connection[Any], keys: Sequence[LookupKey], brought: Sequence[tuple[str, bytes]]
    ) -> list[tuple[Any, ...]]:
        """The newest traits of users and groups one by one, and `brought` ones (name, JSON): rows of `known_apart`."""
        params = _params(keys) | {
            "place": arrays.int4s(list(range(1, len(brought) + 1))),
            "name": arrays.texts([name for name, _ in brought]),
            "value": arrays.jsonbs([value for _, value in brought]),
        }
        return conn.execute(_SQL["known_apart"], params, prepare=True).fetchall()

    def forget(self, keys: Sequence[LookupKey]) -> None:
        """Remove keys whose values in PostgreSQL have just changed."""
        if keys and self._rested():
            self._try(lambda: self._redis.delete(*[key.cache_key for key in keys]))

    def _rested(self) -> bool:
        return time.monotonic() >= self._rest_until

    def _try(self, command: Any) -> Any:
        try:
            return command()
        except redis.ResponseError:
            # A key of another type counts as a miss; Redis itself works.
            return None
        except Exception as error:  # noqa: BLE001 -- no error of Redis may stop a worker
            if not isinstance(error, redis.RedisError | OSError):
                _LOG.exception("the answer of Redis cannot be read; PostgreSQL is used instead")
            self._rest_until = time.monotonic() + _REST_S
            self._redis.connection_pool.disconnect()
            return None

    def _cached(self, keys: Sequence[LookupKey]) -> dict[LookupKey, bytes]:
        if not keys or not self._rested():
            return {}
        found: dict[LookupKey, bytes] | None = self._try(lambda: self._signed(keys))
        return found or {}

    def _signed(self, keys: Sequence[LookupKey]) -> dict[LookupKey, bytes]:
        """Values that Redis holds under the keys, if this class wrote them and they are not stale."""
        names = [key.cache_key for key in keys]
        values: list[Any] = self._redis.mget(names)  # pyright: ignore[reportAssignmentType]
        found: dict[LookupKey, bytes] = {}
        now = time.time()
        for key, name, value in zip(keys, names, values, strict=True):
            if not isinstance(value, bytes) or len(value) < _HEAD_BYTES:
                continue
            if value[:_SIGNATURE_BYTES] != self._signature(name, value[_SIGNATURE_BYTES:]):
                continue
            if now < _EXPIRY.unpack_from(value, _SIGNATURE_BYTES)[0]:
                found[key] = value[_HEAD_BYTES:]
        return found

    def _signature(self, cache_key: str, content: bytes) -> bytes:
        """The signature of the expiry and the value, for this key. No subject_id contains the separating NUL."""
        assert self._signer is not None
        signer = self._signer.copy()
        signer.update(b"%b\0%b" % (cache_key.encode(), content))
        return signer.digest()

    def _await_flights(self, missing: list[LookupKey]) -> tuple[list[LookupKey], dict[LookupKey, bytes]]:
        """Single flight across processes: the one that sets the flag reads; the others wait briefly for the result."""
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

    def _store(self, read: dict[LookupKey, bytes]) -> None:
        if not read or not self._rested():
            return

        def store() -> None:
            pipe = self._redis.pipeline(transaction=False)  # pyright: ignore[reportUnknownMemberType]
            for key, value in read.items():
                ttl_ms = max(1, int(self._ttl_s * 1000 * random.uniform(0.8, 1.0)))  # noqa: S311
                content = _EXPIRY.pack(math.ceil(time.time() + ttl_ms / 1000)) + value
                pipe.set(key.cache_key, self._signature(key.cache_key, content) + content, px=ttl_ms)
                pipe.delete(f"flight:{key.cache_key}")
            pipe.execute()

        self._try(store)


def _params(keys: Sequence[LookupKey]) -> dict[str, Any]:
    return {
        "kind": arrays.texts([key.kind for key in keys]),
        "tenant_id": arrays.int4s([key.tenant_id for key in keys]),
        "subject_id": arrays.texts([key.subject_id for key in keys]),
        "traits_max": TRAITS_MAX,
        "bytes_max": TRAITS_BYTES_MAX,
    }


def _signer(conn: psycopg.Connection[Any]) -> hashlib.blake2b:
    row = conn.execute(_SQL["cache_key"]).fetchone()
    # Without a secret in the database, use a random one: this process then shares no values, and its results are right.
    return hashlib.blake2b(digest_size=_SIGNATURE_BYTES, key=row[0] if row else os.urandom(32))
