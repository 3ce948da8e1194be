"""Sends to the old pipeline: an HTTP address that takes batches as an SDK sends them.

A request is sent once. It is retried, as often as configured, only if it was certainly refused (429, 5xx).
"""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

import aiohttp

from pipeline_platform.backoff import step_s
from pipeline_platform.event.types import QueuedEvent
from pipeline_platform.kill_points import reach
from pipeline_platform.migration.mirror.requests import body_of

# This response header says that the old pipeline counts its own stages. Otherwise the mirror counts its gateway.
COUNTED_HEADER = "X-Pipeline-Counted"
_RETRY_S, _RETRY_S_MAX = 0.2, 3.0
# Servers close idle connections (some after 2 s). A request sent at that moment would be lost.
_KEEP_ALIVE_S = 1.0


@dataclass(frozen=True, slots=True)
class Config:
    """A row of control.legacy_target, as the query `target` reads it. Times in seconds."""

    forward_url: str | None
    headers: Mapping[str, str]
    retries: int
    timeout_s: float
    requests_at_once: int
    give_up_s: float
    configured_at: datetime


@dataclass(frozen=True, slots=True)
class Fate:
    """The result of one request. stage: where its events were lost (None: delivered), with the cause."""

    stage: str | None = None
    cause: str = ""
    counts_itself: bool = False


@dataclass(frozen=True, slots=True)
class Tenant:
    """The tenant of a request's events. write_key: the tenant's key at the old pipeline."""

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
    """Keep-alive connections to the old pipeline, with a limit on concurrent requests.

    Uses aiohttp: with 4 connections, a request costs it 0.2 ms of CPU time. It costs httpx, which all other parts use,
    1.6 ms.
    """

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
        """Wait until every pending request has begun and another one may begin."""
        async with self._free:
            pass

    async def send(self, tenant: Tenant, events: Sequence[QueuedEvent]) -> Fate:
        """Send one request of a tenant's events. A failure of the old pipeline never raises."""
        if self.config.forward_url is None:
            return Fate("mirror", "no forward_url is configured")
        # The time-out does not include waiting for a free connection: a slow pipeline must not count as unreachable.
        async with self._free:
            fate = await self._tries(self.config.forward_url, body_of(events), _headers(self.config, tenant))
        reach("mirror.after_send")
        return fate

    async def _tries(self, url: str, body: bytes, headers: Mapping[str, str]) -> Fate:
        fate, is_refusal = await self._once(url, body, headers)
        for refusals in range(1, self.config.retries + 1):
            if not is_refusal:
                break
            await asyncio.sleep(step_s(refusals, _RETRY_S, _RETRY_S_MAX))
            fate, is_refusal = await self._once(url, body, headers)
        return fate

    async def _once(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[Fate, bool]:
        """The request's fate, and whether it was certainly refused."""
        try:
            # Following a redirect would send a second request, and may turn a POST into a GET.
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
