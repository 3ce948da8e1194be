"""The old pipeline as the mirror sees it: an HTTP address that takes batches as an SDK sends them.

A request is sent once. Only what was certainly refused (429, 5xx) is tried again, as often as configured.
"""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

import aiohttp

from pipeline_platform.event.types import QueuedEvent
from pipeline_platform.kill_points import reach
from pipeline_platform.migration.mirror.requests import body_of

# An old pipeline that counts its own stages says so on its answers; for others the mirror counts their gateway.
COUNTED_HEADER = "X-Pipeline-Counted"
_BACKOFF_S, _BACKOFF_MAX_S = 0.2, 3.0
# Servers close connections that rest (some after 2 s): what is sent at that moment would be lost.
_KEEP_ALIVE_S = 1.0


@dataclass(frozen=True, slots=True)
class Config:
    """A row of control.legacy_target, as the query `target` reads it; seconds."""

    forward_url: str | None
    headers: Mapping[str, str]
    retries: int
    timeout_s: float
    requests_at_once: int
    give_up_s: float
    configured_at: datetime


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one request: lost_at is the stage that lost its events (None: taken), with the cause."""

    lost_at: str | None = None
    cause: str = ""
    counts_itself: bool = False


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose events a request carries; write_key: its key at the old pipeline."""

    tenant_id: int
    name: str
    write_key: str | None


def _headers(config: Config, tenant: Tenant) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "X-Pipeline-Tenant": quote(tenant.name),
        "X-Pipeline-Tenant-Id": str(tenant.tenant_id),
        **config.headers,
    }
    if tenant.write_key:
        headers["Authorization"] = "Basic " + base64.b64encode(f"{tenant.write_key}:".encode()).decode()
    return headers


class Target:
    """Keep-alive connections to the old pipeline, and no more requests at once than it is to get."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._free = asyncio.Semaphore(config.requests_at_once)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=config.requests_at_once, keepalive_timeout=_KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=config.timeout_s),
        )

    async def close(self) -> None:
        await self._session.close()

    async def room(self) -> None:
        """Wait until every request asked for has begun and there is room for another."""
        async with self._free:
            pass

    async def send(self, tenant: Tenant, events: Sequence[QueuedEvent]) -> Fate:
        """Send one request of a tenant's events; never raises for what the old pipeline does."""
        if self.config.forward_url is None:
            return Fate("mirror", "no forward_url is configured")
        # Waiting for its turn counts against no request: an old pipeline that is slow is not one that does not answer.
        async with self._free:
            fate = await self._tries(self.config.forward_url, body_of(events), _headers(self.config, tenant))
        reach("mirror.after_send")
        return fate

    async def _tries(self, url: str, body: bytes, headers: Mapping[str, str]) -> Fate:
        fate, is_refusal = await self._once(url, body, headers)
        for attempt in range(self.config.retries):
            if not is_refusal:
                break
            await asyncio.sleep(min(_BACKOFF_S * 2**attempt, _BACKOFF_MAX_S))
            fate, is_refusal = await self._once(url, body, headers)
        return fate

    async def _once(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[Fate, bool]:
        """What became of it, and whether it was certainly not taken."""
        try:
            # A redirect that is followed is a second request, and of a POST it may make a GET.
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                await answer.read()
        except TimeoutError:
            return Fate("mirror", "no answer in time"), False
        except aiohttp.ClientConnectorError:
            return Fate("mirror", "unreachable"), True
        except aiohttp.ClientError as error:
            return Fate("mirror", type(error).__name__), False
        counted = COUNTED_HEADER in answer.headers
        if answer.status < 300:
            return Fate(counts_itself=counted), False
        return Fate("gateway", f"status {answer.status}", counted), answer.status == 429 or answer.status >= 500
