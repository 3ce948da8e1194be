"""Request bodies, read and decompressed as a stream that stops at the size limit.

A body that arrives too slowly is refused (429: the client may try again). All bodies in memory share one budget, so
their memory is bounded.
"""

import asyncio
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.types import Receive

from pipeline_platform.errors import RequestRefusedError
from pipeline_platform.gateway.responses import TryLaterError
from pipeline_platform.settings import Settings

if TYPE_CHECKING:
    from zlib import _Decompress  # pyright: ignore[reportPrivateUsage] -- the type has no public name

_GZIP = 16 + zlib.MAX_WBITS
_GZIP_MAGIC = b"\x1f\x8b"
# A whole body may take this many times as long as one piece.
_PIECES_OF_TIME = 6


@dataclass(slots=True)
class BodyBudget:
    """Bytes of all bodies in memory."""

    bytes_max: int
    bytes_held: int = 0

    def take(self, size: int) -> None:
        """Raises TryLaterError if the budget is used up."""
        if self.bytes_held + size > self.bytes_max:
            raise TryLaterError("busy", "too many large requests at once: send this one again", 1.0)
        self.bytes_held += size

    def give_back(self, size: int) -> None:
        self.bytes_held -= size


@dataclass(slots=True)
class Held:
    """The bytes that one request takes of `budget`, and the cost of its body to the tenant's quota of bytes."""

    budget: BodyBudget
    held: int = 0
    cost: int = 0

    def take(self, received: int, unfolded: int) -> None:
        """Take a piece of a body. Raises TryLaterError if the budget is used up."""
        self.cost += max(received, unfolded)
        self.budget.take(unfolded)
        self.held += unfolded

    def release(self) -> None:
        self.budget.give_back(self.held)
        self.held = 0


class Inflater:
    """Decompresses one body, piece by piece.

    Raises RequestRefusedError: 400 if it is broken, 413 above the limit.
    """

    def __init__(self, coding: str, bytes_max: int) -> None:
        self._coding = coding
        self._left = bytes_max
        self._bytes_max = bytes_max
        self._head = b""
        self._inflate: _Decompress | None = None

    def feed(self, piece: bytes) -> bytes:
        """The decompressed bytes of `piece`."""
        if self._inflate is None:
            self._head += piece
            # Two bytes distinguish deflate with a zlib header from deflate without one.
            if len(self._head) < 2:
                return b""
            self._inflate, piece = self._start(self._head), self._head
        out: list[bytes] = []
        while piece:
            if self._inflate.eof:
                self._inflate = self._next_member(piece)
            out.append(self._unfold(self._inflate, piece))
            if not self._inflate.eof:
                break
            piece = self._inflate.unused_data
        return b"".join(out)

    def end(self) -> None:
        """The body has ended. Check that the stream has, too."""
        if self._inflate is None or not self._inflate.eof:
            raise RequestRefusedError(400, "truncated_body", f"the {self._coding} body ends too early")

    def _unfold(self, inflate: "_Decompress", piece: bytes) -> bytes:
        try:
            unfolded = inflate.decompress(piece, self._left + 1)
        except zlib.error as error:
            raise RequestRefusedError(400, "invalid_encoding", f"the body is no {self._coding}: {error}") from error
        self._left -= len(unfolded)
        if self._left < 0:
            raise too_large(self._bytes_max)
        return unfolded

    def _start(self, head: bytes) -> "_Decompress":
        if self._coding == "gzip":
            return zlib.decompressobj(_GZIP)
        with_header = head[0] & 0x0F == 8 and (head[0] << 8 | head[1]) % 31 == 0
        return zlib.decompressobj(zlib.MAX_WBITS if with_header else -zlib.MAX_WBITS)

    def _next_member(self, piece: bytes) -> "_Decompress":
        """Start the next gzip file. They may be concatenated."""
        if self._coding == "gzip" and piece.startswith(_GZIP_MAGIC[: len(piece)]):
            return zlib.decompressobj(_GZIP)
        raise RequestRefusedError(400, "invalid_encoding", f"something follows after the {self._coding} body")


def too_large(bytes_max: int) -> RequestRefusedError:
    return RequestRefusedError(413, "body_too_large", f"a body may have {bytes_max} bytes, decompressed")


def coding_of(content_encoding: str) -> str | None:
    """gzip, deflate or None (plain). Raises RequestRefusedError for others, and for more than one."""
    codings = [name.strip().lower().removeprefix("x-") for name in content_encoding.split(",")]
    codings = [name for name in codings if name not in ("", "identity")]
    if not codings:
        return None
    if len(codings) == 1 and codings[0] in ("gzip", "deflate"):
        return codings[0]
    message = f"Content-Encoding {content_encoding[:100]!r}: send plain, gzip or deflate"
    raise RequestRefusedError(400, "unsupported_encoding", message)


def body_seconds_max(settings: Settings) -> float:
    """The longest time that a whole body may take."""
    return _PIECES_OF_TIME * settings.body_timeout_s


class ClientLeftError(Exception):
    """The client disconnected before its body was complete. No response is sent."""


async def read_body(
    receive: Receive, content_encoding: str, bytes_max: int, held: Held, clock: asyncio.Timeout, piece_s: float
) -> bytes:
    """The whole body, decompressed. The caller releases `held` when it is done with the body.

    Raises RequestRefusedError (400, 413), TryLaterError and ClientLeftError.
    clock: the time-out of the request. It is set again for each piece, which may take `piece_s`.
    """
    coding = coding_of(content_encoding)
    inflater = Inflater(coding, bytes_max) if coding else None
    now = asyncio.get_running_loop().time
    end = now() + _PIECES_OF_TIME * piece_s
    body: list[bytes] = []
    received = 0
    more = True
    while more:
        clock.reschedule(min(end, now() + piece_s))
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        more, piece = message.get("more_body", False), message.get("body", b"")
        received += len(piece)
        try:
            unfolded = inflater.feed(piece) if inflater else piece
            if max(received, held.held + len(unfolded)) > bytes_max:
                raise too_large(bytes_max)
        except RequestRefusedError:
            # How much was decompressed before the fault is not known.
            held.cost += bytes_max
            raise
        held.take(len(piece), len(unfolded))
        body.append(unfolded)
    if inflater:
        inflater.end()
    return body[0] if len(body) == 1 else b"".join(body)
