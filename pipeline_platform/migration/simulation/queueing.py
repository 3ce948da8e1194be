"""The queue of the old pipeline: a list in Redis, and the messages that were received and are not finished.

A message is received once. If its function does not finish within the visibility time-out, the message is lost: the
pipeline has no retry and no dead letters.
"""

import time
from typing import Any

import msgspec
import redis.asyncio
from redis import Redis

_WAITING, _IN_HAND = "legacy:queue", "legacy:in_hand"


class Message(msgspec.Struct, array_like=True, frozen=True):
    """A queued event with its request's context. arrived_at: seconds since 1970."""

    tenant_id: int
    event_id: str
    arrived_at: float
    event: msgspec.Raw
    context: msgspec.Raw = msgspec.Raw(b"null")


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Message).decode


class Queue:
    """The queue, for producers and consumers."""

    def __init__(self, url: str) -> None:
        self._redis: Any = redis.asyncio.Redis.from_url(url, protocol=2)  # pyright: ignore[reportUnknownMemberType]

    async def close(self) -> None:
        await self._redis.aclose()

    async def send(self, messages: list[Message]) -> None:
        await self._redis.rpush(_WAITING, *[_encode(message) for message in messages])

    async def receive(self, most: int, visibility_s: float) -> list[tuple[bytes, Message]]:
        """Up to `most` messages, with the receipts that `finish` needs."""
        found: list[bytes] | None = await self._redis.lpop(_WAITING, most)
        if not found:
            return []
        deadline = time.time() + visibility_s
        await self._redis.zadd(_IN_HAND, dict.fromkeys(found, deadline))
        return [(receipt, _decode(receipt)) for receipt in found]

    async def finish(self, receipts: list[bytes]) -> None:
        await self._redis.zrem(_IN_HAND, *receipts)

    async def expired(self) -> list[Message]:
        """Remove and return the messages whose time-out has passed."""
        now = time.time()
        found: list[bytes] = await self._redis.zrangebyscore(_IN_HAND, "-inf", now)
        if found:
            await self._redis.zrem(_IN_HAND, *found)
        return [_decode(receipt) for receipt in found]


def events_inside(redis_url: str) -> int:
    """How many events wait in the queue or are being processed by a function."""
    with Redis.from_url(redis_url, protocol=2) as client:  # pyright: ignore[reportUnknownMemberType]
        return int(client.llen(_WAITING)) + int(client.zcard(_IN_HAND))  # pyright: ignore[reportArgumentType]
