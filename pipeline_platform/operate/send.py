"""Sends a file of events through the gateway, as any client would.

A refused or unanswered request is sent again until it is acknowledged: the identity of its events makes that harmless,
and an Idempotency-Key gives one to events that bring no messageId.
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
from pipeline_platform.errors import InvalidEventError, PipelineError
from pipeline_platform.ndjson import open_lines, read_object, take_text, write_object
from pipeline_platform.settings import Settings
from pipeline_platform.tenants import create_key, ensure_tenant
from pipeline_platform.web_guard import is_loopback

_BATCH_BYTES_MAX = 500_000
_IN_FLIGHT = 4
_GIVE_UP_S = 300.0
_BAD_LINES_SHOWN = 20


@dataclass(slots=True)
class SendResult:
    """What the gateway said, in events; refused: requests that can never be accepted, by status and message."""

    acknowledged: int = 0
    accepted: int = 0
    rejected: int = 0
    refused: dict[str, int] = field(default_factory=dict[str, int])
    bad_lines: int = 0
    bad_line_samples: list[str] = field(default_factory=list[str])

    @property
    def complete(self) -> bool:
        return not (self.rejected or self.refused or self.bad_lines)


@dataclass(frozen=True, slots=True)
class _Batch:
    number: int
    tenant: str
    body: bytes
    events: int


class WriteKeys:
    """One write key a tenant: the given one for all, or keys of our own, kept in the home (mode 0600)."""

    def __init__(self, settings: Settings, only: str | None) -> None:
        self._settings = settings
        self._only = only
        self._path = settings.home / "write-keys.json"
        self._known: dict[str, str] = json.loads(self._path.read_text()) if self._path.exists() else {}

    def of(self, tenant: str) -> str:
        return self._only or self._known.get(tenant) or self.renew(tenant)

    def renew(self, tenant: str) -> str:
        """Make the tenant, where it is missing, and a new key. Raises PipelineError for a key that was given."""
        if self._only:
            raise PipelineError("the gateway does not know this write key; see: pipeline-platform key list")
        with connect(self._settings.database_url, "send") as conn:
            ensure_tenant(conn, tenant)
            self._known[tenant] = create_key(conn, tenant, "send").write_key
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(self._known, file)
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
    """Send every line; returns when all are acknowledged or can never be. PipelineError after 5 minutes in vain."""
    result = SendResult()
    keys = WriteKeys(settings, write_key)
    with open_lines(path) as lines:
        batches = _batches(lines, tenant_field, batch_events, result)
        try:
            asyncio.run(_send_all(batches, gateway, keys, rate, result, progress))
        except ExceptionGroup as group:
            ours = group.subgroup(PipelineError)
            if ours is None:
                raise
            raise PipelineError(f"{ours.exceptions[0]} ({result.acknowledged} events acknowledged)") from group
    return result


def _batches(lines: IO[bytes], tenant_field: str | None, batch_events: int, result: SendResult) -> Iterator[_Batch]:
    waiting: dict[str, list[bytes]] = {}
    sizes: dict[str, int] = {}
    number = 0

    def close(tenant: str) -> _Batch:
        events = waiting.pop(tenant)
        sizes.pop(tenant)
        return _Batch(number, tenant, b'{"batch":[' + b",".join(events) + b"]}", len(events))

    for line_number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            tenant, event = _read_line(line.strip(), tenant_field)
        except InvalidEventError as error:
            result.bad_lines += 1
            if len(result.bad_line_samples) < _BAD_LINES_SHOWN:
                result.bad_line_samples.append(f"line {line_number}: {error}")
            continue
        waiting.setdefault(tenant, []).append(event)
        sizes[tenant] = sizes.get(tenant, 0) + len(event)
        if len(waiting[tenant]) >= batch_events or sizes[tenant] >= _BATCH_BYTES_MAX:
            yield close(tenant)
            number += 1
    for tenant in list(waiting):
        yield close(tenant)
        number += 1


def _read_line(line: bytes, tenant_field: str | None) -> tuple[str, bytes]:
    """The tenant's name and the event without it: the tenant is no part of the protocol."""
    if tenant_field is None:
        read_object(line)
        return "", line
    fields = read_object(line)
    name = take_text(fields, tenant_field)
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
        # One thread: whoever asks the generator next gets the next batch.
        for batch in batches:
            offered += batch.events
            if rate:
                await asyncio.sleep(max(0.0, start + (offered - batch.events) / rate - time.monotonic()))
            await _send(client, f"{gateway}/v1/batch", keys, batch, result)
            progress(batch.events)

    # A proxy of the environment is on the way to another machine, never to this one.
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
            why, wait_s = f"{answer.status_code} {answer.text[:200]}", float(answer.headers.get("Retry-After", "1"))
        if time.monotonic() + wait_s > deadline:
            raise PipelineError(
                f"the gateway at {url} took nothing for {_GIVE_UP_S:.0f} s ({why}); send the file again"
            )
        await asyncio.sleep(wait_s)


def _count(answer: httpx.Response, batch: _Batch, result: SendResult) -> None:
    try:
        said: dict[str, Any] = answer.json()
    except ValueError as error:
        raise PipelineError(f"{answer.url} answers {answer.status_code} and no JSON: is it a gateway?") from error
    if answer.status_code == HTTPStatus.OK:
        result.acknowledged += batch.events
        result.accepted += said["accepted"]
        result.rejected += len(said["rejected"])
        return
    why = f"{answer.status_code} {said.get('code')}: {said.get('message')}"
    result.refused[why] = result.refused.get(why, 0) + batch.events
