"""Sends a file of events through the gateway, as any client would.

A refused or unanswered request is sent again until it is acknowledged. The identity of its events makes that safe. An
Idempotency-Key gives an identity to events without a messageId.
"""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import IO, Any
from urllib.parse import urlsplit

import httpx

from pipeline_platform.db import connect
from pipeline_platform.errors import (
    ConfigError,
    DamagedFileError,
    InvalidEventError,
    PipelineError,
)
from pipeline_platform.event.ndjson import numbered, open_lines, read_object, write_object
from pipeline_platform.local.web_guard import is_loopback
from pipeline_platform.settings import Settings
from pipeline_platform.tenants.tenants import create_key, ensure_tenant, take_tenant

_BATCH_BYTES_MAX = 500_000
_IN_FLIGHT = 4
_GIVE_UP_S = 300.0
_BAD_LINES_SHOWN = 20
_PORT_MAX = 65_535


@dataclass(slots=True)
class SendResult:
    """The gateway's answers, in events. refused: requests that can never be accepted, by status and message.

    damage: where the file could not be read any further.
    """

    acknowledged: int = 0
    accepted: int = 0
    rejected: int = 0
    refused: dict[str, int] = field(default_factory=dict[str, int])
    bad_lines: int = 0
    bad_line_samples: list[str] = field(default_factory=list[str])
    damage: str | None = None

    @property
    def complete(self) -> bool:
        return not (self.rejected or self.refused or self.bad_lines or self.damage)


@dataclass(frozen=True, slots=True)
class _Batch:
    number: int
    tenant: str
    body: bytes
    events: int


class WriteKeys:
    """One write key for each tenant: the given one for all, or own keys stored in the home (mode 0600)."""

    def __init__(self, settings: Settings, only: str | None) -> None:
        self._settings = settings
        self._only = only
        self._path = settings.home / "write-keys.json"
        try:
            self._known: dict[str, str] = json.loads(self._path.read_text()) if self._path.exists() else {}
        except ValueError as error:
            raise ConfigError(f"{self._path} is damaged: remove it, new keys are made then") from error

    def of(self, tenant: str) -> str:
        return self._only or self._known.get(tenant) or self.renew(tenant)

    def renew(self, tenant: str) -> str:
        """Create the tenant if it is missing, and a new write key. PipelineError if the write key was given."""
        if self._only:
            raise PipelineError("the gateway does not know this write key; see: pipeline-platform key list")
        with connect(self._settings.database_url, "send") as conn:
            ensure_tenant(conn, tenant)
            self._known[tenant] = create_key(conn, tenant, "send").write_key
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(self._known, file)
        unfinished.replace(self._path)
        return self._known[tenant]


def send_file(
    settings: Settings,
    gateway: str,
    path: str,
    *,
    write_key: str | None,
    tenant_field: str | None,
    rate: float | None,
    batch_events: int,
    progress: Callable[[int], None],
) -> SendResult:
    """Send every line; returns when each is acknowledged or can never be. PipelineError after 5 minutes without
    progress.
    """
    _check_address(gateway)
    result = SendResult()
    keys = WriteKeys(settings, write_key)
    with open_lines(path) as lines:
        # A request has some bytes around its events.
        bytes_max = settings.body_bytes_max - len('{"batch":[]}')
        batches = _batches(lines, tenant_field, batch_events, bytes_max, result)
        try:
            asyncio.run(_send_all(batches, gateway, keys, rate, result, progress))
        except ExceptionGroup as group:
            ours = group.subgroup(PipelineError)
            if ours is None:
                raise
            raise PipelineError(f"{ours.exceptions[0]} ({result.acknowledged} events acknowledged)") from group
    return result


def _check_address(gateway: str) -> None:
    try:
        url = httpx.URL(gateway)
    except httpx.InvalidURL as error:
        raise ConfigError(f"{gateway} is no address of a gateway: {error}") from error
    # httpx escapes characters that are invalid in a host name instead of rejecting them.
    is_host = url.host and ("%" not in url.host or ":" in url.host)
    if url.scheme not in ("http", "https") or not is_host or (url.port or 0) > _PORT_MAX:
        raise ConfigError(f"{gateway} is no address of a gateway: write it as http://127.0.0.1:8080")


def _batches(
    lines: IO[bytes], tenant_field: str | None, batch_events: int, bytes_max: int, result: SendResult
) -> Iterator[_Batch]:
    waiting: dict[str, list[bytes]] = {}
    sizes: dict[str, int] = {}
    number = 0

    def close(tenant: str) -> _Batch:
        events = waiting.pop(tenant)
        sizes.pop(tenant)
        return _Batch(number, tenant, b'{"batch":[' + b",".join(events) + b"]}", len(events))

    for tenant, event in _events(lines, tenant_field, bytes_max, result):
        if sizes.get(tenant, 0) + len(event) > _BATCH_BYTES_MAX and tenant in waiting:
            # A large event is sent alone: if the request is too large, no other event is refused with it.
            yield close(tenant)
            number += 1
        waiting.setdefault(tenant, []).append(event)
        sizes[tenant] = sizes.get(tenant, 0) + len(event)
        if len(waiting[tenant]) >= batch_events or sizes[tenant] >= _BATCH_BYTES_MAX:
            yield close(tenant)
            number += 1
    for tenant in list(waiting):
        yield close(tenant)
        number += 1


def _events(
    lines: IO[bytes], tenant_field: str | None, bytes_max: int, result: SendResult
) -> Iterator[tuple[str, bytes]]:
    """Each event with its tenant's name. Notes lines that are no events, and the place where a damaged file ends."""

    def note(why: str) -> None:
        result.bad_lines += 1
        if len(result.bad_line_samples) < _BAD_LINES_SHOWN:
            result.bad_line_samples.append(why)

    try:
        for number, line in numbered(lines, bytes_max):
            try:
                if isinstance(line, InvalidEventError):
                    raise line
                yield _read_line(line, tenant_field)
            except InvalidEventError as error:
                note(f"line {number}: {error}")
    except DamagedFileError as error:
        result.damage = f"{error}: what comes before was sent"


def _read_line(line: bytes, tenant_field: str | None) -> tuple[str, bytes]:
    """The tenant's name and the event without it: the protocol has no tenant field."""
    if tenant_field is None:
        read_object(line)
        return "", line
    fields = read_object(line)
    name = take_tenant(fields, tenant_field)
    return name, write_object(fields)


async def _send_all(
    batches: Iterator[_Batch],
    gateway: str,
    keys: WriteKeys,
    rate: float | None,
    result: SendResult,
    progress: Callable[[int], None],
) -> None:
    start = time.monotonic()
    offered = 0

    async def run(client: httpx.AsyncClient) -> None:
        nonlocal offered
        # All senders run in one thread, so each takes the next batch of the generator.
        for batch in batches:
            offered += batch.events
            if rate:
                await asyncio.sleep(max(0.0, start + (offered - batch.events) / rate - time.monotonic()))
            await _send(client, f"{gateway}/v1/batch", keys, batch, result)
            progress(batch.events)

    # A proxy from the environment is used for other machines, never for this one.
    trust_env = not is_loopback(urlsplit(gateway).hostname or "")
    async with httpx.AsyncClient(timeout=15.0, trust_env=trust_env) as client, asyncio.TaskGroup() as tasks:
        for _ in range(_IN_FLIGHT):
            tasks.create_task(run(client))


async def _send(client: httpx.AsyncClient, url: str, keys: WriteKeys, batch: _Batch, result: SendResult) -> None:
    idempotency_key = hashlib.sha256(b"%d:" % batch.number + batch.body).hexdigest()
    headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key}
    deadline = time.monotonic() + _GIVE_UP_S
    write_key = keys.of(batch.tenant)
    renewed = False
    while True:
        try:
            answer = await client.post(url, content=batch.body, headers=headers, auth=(write_key, ""))
        except httpx.TransportError as error:
            why, wait_s = f"{type(error).__name__}: {error}", 0.5
        else:
            if answer.status_code == HTTPStatus.UNAUTHORIZED and not renewed:
                write_key, renewed = keys.renew(batch.tenant), True
                continue
            if (
                answer.status_code != HTTPStatus.TOO_MANY_REQUESTS
                and answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR
            ):
                _count(answer, batch, result)
                return
            why, wait_s = f"{answer.status_code} {answer.text[:200]}", _retry_after(answer)
        if time.monotonic() + wait_s > deadline:
            raise PipelineError(
                f"the gateway at {url} took nothing for {_GIVE_UP_S:.0f} s ({why}); send the file again"
            )
        await asyncio.sleep(wait_s)


def _retry_after(answer: httpx.Response) -> float:
    """Seconds to wait; 1 if a server in front of the gateway sent a date or nothing."""
    said = answer.headers.get("Retry-After", "")
    return float(said) if said.isdecimal() else 1.0


def _count(answer: httpx.Response, batch: _Batch, result: SendResult) -> None:
    try:
        said: dict[str, Any] = answer.json()
        if answer.status_code == HTTPStatus.OK:
            accepted, rejected = int(said["accepted"]), len(said["rejected"])
            result.acknowledged += batch.events
            result.accepted += accepted
            result.rejected += rejected
            return
        said.get("code")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PipelineError(
            f"{answer.url} answers {answer.status_code}, and not as a gateway does: is it one?"
        ) from error
    why = f"{answer.status_code} {said.get('code')}: {said.get('message')}"
    result.refused[why] = result.refused.get(why, 0) + batch.events
