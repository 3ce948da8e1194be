"""Finds the tenant of a write key: known ones in memory, unknown ones in the database, once a second at most.

Known write keys are confirmed twice in `key_refresh_s`, so a revoked one stops working within that time. While the
database is down, known write keys stay valid (the commit then answers 429), and unknown ones get 429 as well, because
they may be valid. Never stores a write key, only its hash.
"""

import asyncio
import hmac
import logging
from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.errors import RequestRefusedError
from pipeline_platform.event.types import TenantId
from pipeline_platform.gateway.db_connection import BoundedConnection
from pipeline_platform.gateway.responses import TryLaterError
from pipeline_platform.kill_points import reach
from pipeline_platform.settings import Settings
from pipeline_platform.tenants.write_keys import hash_write_key

_LOG = logging.getLogger(__name__)
_SQL = queries("gateway")
_UNKNOWN_FOR_S = 1.0
_UNKNOWN_MAX = 10_000
_WANTED_MAX = 10_000
_LOOK_UP_S_MAX = 2.0
_REST_S = 0.2


class Tenant(NamedTuple):
    """The sender. events_per_s: its own quota, or None for the common one."""

    tenant_id: TenantId
    events_per_s: int | None


class _KnownKey(NamedTuple):
    key_hash: bytes
    tenant: Tenant


class WriteKeys:
    """The write keys that this process has seen."""

    def __init__(self, settings: Settings, connection: BoundedConnection) -> None:
        self._refresh_s = settings.key_refresh_s / 2
        self._connection = connection
        self._known: dict[bytes, _KnownKey] = {}
        self._unknown_until: dict[bytes, float] = {}
        self._wanted: dict[bytes, asyncio.Future[Tenant | None]] = {}
        self._wake = asyncio.Event()

    async def tenant_of(self, one: str | None, other: str | None) -> Tenant:
        """The tenant of a write key, from up to two places. Raises RequestRefusedError (401) and TryLaterError."""
        if one and other and not _equal(one, other):
            message = "the write keys of the Authorization header, the query and the body differ"
            raise RequestRefusedError(401, "different_write_keys", message)
        write_key = one or other
        if not write_key:
            message = "no write key: send it as HTTP Basic user name, or as writeKey in the body or the query"
            raise RequestRefusedError(401, "missing_write_key", message)
        key_hash = hash_write_key(write_key)
        known = self._known.get(key_hash)
        if known is not None and hmac.compare_digest(known.key_hash, key_hash):
            return known.tenant
        tenant = None if self._unknown_until.get(key_hash, 0.0) > monotonic() else await self._look_up(key_hash)
        if tenant is None:
            raise RequestRefusedError(401, "unknown_write_key", "the write key is unknown or revoked")
        return tenant

    async def run(self) -> None:
        """Look up requested write keys and confirm known ones, forever."""
        due = monotonic() + self._refresh_s
        failing = False
        while True:
            try:
                async with asyncio.timeout(max(0.0, due - monotonic())):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            reach("gateway.keys")
            try:
                await self._answer_wanted()
                if monotonic() >= due:
                    await self._confirm_known()
                    due = monotonic() + self._refresh_s
                failing = False
            except psycopg.Error as error:
                if not failing:
                    _LOG.warning("write keys cannot be read; known ones stay valid: %s", error)
                failing = True
                self._give_up()
                await asyncio.sleep(_REST_S)

    async def _look_up(self, key_hash: bytes) -> Tenant | None:
        future = self._wanted.get(key_hash)
        if future is None:
            if len(self._wanted) >= _WANTED_MAX:
                raise TryLaterError("busy", "too many unknown write keys at once", 1.0)
            future = self._wanted[key_hash] = asyncio.get_running_loop().create_future()
            self._wake.set()
        try:
            async with asyncio.timeout(_LOOK_UP_S_MAX):
                return await asyncio.shield(future)
        except TimeoutError as error:
            raise TryLaterError("database_down", "the write key cannot be checked now", 1.0) from error

    async def _answer_wanted(self) -> None:
        wanted = list(self._wanted)
        if not wanted:
            return
        found = await self._read(wanted)
        self._known.update(found)
        for key_hash in wanted:
            key = found.get(key_hash)
            if key is None:
                self._remember_unknown(key_hash)
            _resolve(self._wanted.pop(key_hash), key.tenant if key else None)

    async def _confirm_known(self) -> None:
        if self._known:
            self._known = await self._read(list(self._known))

    async def _read(self, key_hashes: Sequence[bytes]) -> dict[bytes, _KnownKey]:
        async with self._connection.bounded() as conn:
            cursor = await conn.execute(_SQL["keys"], (key_hashes,), binary=True)
            return {
                key_hash: _KnownKey(key_hash, Tenant(TenantId(tenant_id), events_per_s))
                for key_hash, tenant_id, events_per_s in await cursor.fetchall()
            }

    def _remember_unknown(self, key_hash: bytes) -> None:
        if len(self._unknown_until) >= _UNKNOWN_MAX:
            del self._unknown_until[next(iter(self._unknown_until))]
        self._unknown_until.pop(key_hash, None)
        self._unknown_until[key_hash] = monotonic() + _UNKNOWN_FOR_S

    def _give_up(self) -> None:
        for future in self._wanted.values():
            if not future.done():
                future.set_exception(TryLaterError("database_down", "the write key cannot be checked now", 1.0))
                # It is no error if no request waits for it any more.
                future.exception()
        self._wanted.clear()


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(hash_write_key(one), hash_write_key(other))


def _resolve(future: asyncio.Future[Tenant | None], tenant: Tenant | None) -> None:
    if not future.done():
        future.set_result(tenant)
