"""What nobody foresaw is answered as well: never by a 5xx."""

import asyncio
from typing import Any, cast

import httpx

from pipeline_platform.gateway.app import make_app, make_gateway
from pipeline_platform.settings import Settings


def test_an_unforeseen_error_is_not_now() -> None:
    gateway = make_gateway(Settings(), "postgresql://nowhere")
    gateway.ingest.keys = cast("Any", None)

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(make_app(gateway), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.post("/v1/track", content=b"{}", auth=("key", ""))

    answer = asyncio.run(post())
    assert (answer.status_code, answer.json()["code"]) == (429, "not_stored")
    assert int(answer.headers["retry-after"]) >= 1
