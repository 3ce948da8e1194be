"""Bodies: decompressed piece by piece, never past the cap."""

import asyncio
import gzip
import zlib
from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_platform.errors import RequestRefusedError
from pipeline_platform.gateway.bodies import BodyBudget, ClientLeftError, Held, coding_of, read_body
from pipeline_platform.gateway.responses import TryLaterError

TEXT = b'{"batch":[]}' * 50
BYTES_MAX = 2_000
# The same bytes in every second: they are part of the tests' names, which each of xdist's workers makes anew.
gzipped = partial(gzip.compress, mtime=0)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def read(pieces: Iterable[bytes], encoding: str = "", budget: BodyBudget | None = None, leave: bool = False) -> bytes:
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.disconnect"} if leave else {"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def run() -> bytes:
        held = Held(budget or BodyBudget(1 << 20))
        try:
            async with asyncio.timeout(None) as clock:
                body = await read_body(receive, encoding, BYTES_MAX, held, clock, 5.0)
                assert held.held == len(body) <= held.cost
                return body
        except BaseException:
            held.release()
            raise

    return asyncio.run(run())


def refusal(pieces: Iterable[bytes], encoding: str = "") -> tuple[int, str]:
    budget = BodyBudget(1 << 20)
    with pytest.raises(RequestRefusedError) as refused:
        read(pieces, encoding, budget)
    assert budget.bytes_held == 0
    return refused.value.status, refused.value.code


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("", TEXT),
        ("identity", TEXT),
        ("gzip", gzipped(TEXT)),
        ("x-gzip", gzipped(TEXT)),
        (" GZIP , identity", gzipped(TEXT)),
        ("gzip", gzipped(TEXT[:100]) + gzipped(TEXT[100:])),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_encodings_in_pieces_of_any_size(encoding: str, packed: bytes, size: int) -> None:
    budget = BodyBudget(1 << 20)
    assert read([packed[at : at + size] for at in range(0, len(packed), size)], encoding, budget) == TEXT
    assert budget.bytes_held == len(TEXT)


@given(
    data=st.binary(max_size=2_000), cuts=st.lists(st.integers(0, 2_000)), packer=st.sampled_from(["gzip", "deflate"])
)
def test_what_was_packed_comes_out(data: bytes, cuts: list[int], packer: str) -> None:
    packed = gzipped(data) if packer == "gzip" else zlib.compress(data)
    at = [0, *sorted(cuts), len(packed)]
    assert read([packed[start:end] for start, end in pairwise(at)], packer) == data


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "deflate, gzip", "nonsense"])
def test_other_encodings(encoding: str) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        coding_of(encoding)
    assert (refused.value.status, refused.value.code) == (400, "unsupported_encoding")


@pytest.mark.parametrize(
    ("encoding", "packed", "answer"),
    [
        ("gzip", TEXT, (400, "invalid_encoding")),
        ("gzip", gzipped(TEXT) + b"more", (400, "invalid_encoding")),
        ("gzip", gzipped(TEXT)[:-3], (400, "truncated_body")),
        ("gzip", b"", (400, "truncated_body")),
        ("gzip", b"\x1f", (400, "truncated_body")),
        ("deflate", zlib.compress(TEXT)[:-3], (400, "truncated_body")),
        ("deflate", zlib.compress(TEXT) + b"x", (400, "invalid_encoding")),
        ("deflate", b"\xff" * 100, (400, "invalid_encoding")),
        ("", b"a" * 2_001, (413, "body_too_large")),
        ("gzip", gzipped(b"a" * 2_001), (413, "body_too_large")),
        ("gzip", gzipped(b"a" * 1_000_000), (413, "body_too_large")),
        ("gzip", gzipped(b"a" * 1_500) + gzipped(b"a" * 501), (413, "body_too_large")),
        ("gzip", gzipped(b"") * 200, (413, "body_too_large")),
    ],
)
@pytest.mark.parametrize("size", [1, 13, 10_000])
def test_broken_and_too_large_bodies(encoding: str, packed: bytes, answer: tuple[int, str], size: int) -> None:
    assert refusal([packed[at : at + size] for at in range(0, len(packed), size)], encoding) == answer


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_exactly_the_cap(encoding: str) -> None:
    data = b"a" * 2_000
    assert read([gzipped(data) if encoding else data], encoding) == data


def test_all_bodies_share_one_budget() -> None:
    budget = BodyBudget(1_000)
    read([b"a" * 600], budget=budget)
    with pytest.raises(TryLaterError) as refused:
        read([b"a" * 300, b"a" * 300], budget=budget)
    assert refused.value.code == "busy"
    assert budget.bytes_held == 600


def test_a_client_that_leaves_holds_nothing() -> None:
    budget = BodyBudget(1_000)
    with pytest.raises(ClientLeftError):
        read([b"a" * 300], budget=budget, leave=True)
    assert budget.bytes_held == 0
