"""The source settings that SDKs in browsers fetch before they send: minimal, and the same for every tenant.

@segment/analytics-next fetches `/v1/projects/KEY/settings` from its `cdnURL`. @rudderstack/analytics-js fetches
`/sourceConfig` from its `configUrl`. Both name no destinations and turn the SDK's own telemetry off, so that events go
only to the gateway.
"""

from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from pipeline_platform.errors import RequestRefusedError
from pipeline_platform.gateway import responses
from pipeline_platform.gateway.protocol import key_of_header, key_of_query
from pipeline_platform.gateway.responses import Answer, TryLaterError
from pipeline_platform.gateway.write_keys import WriteKeys


@dataclass(frozen=True, slots=True)
class BrowserSettings:
    """The routes of the settings, for valid write keys only."""

    keys: WriteKeys

    async def segment(self, request: Request) -> Response:
        key = request.path_params["key"]
        return (await self._answer(request, key, None, _segment(key))).response()

    async def rudderstack(self, request: Request) -> Response:
        in_header = key_of_header(request.headers.get("authorization", "").encode("latin-1"))
        in_query = key_of_query(request.url.query.encode())
        return (await self._answer(request, in_header, in_query, _RUDDERSTACK)).response()

    async def _answer(self, request: Request, key: str | None, other: str | None, document: bytes) -> Answer:
        if request.method == "OPTIONS":
            return responses.PREFLIGHT
        try:
            await self.keys.tenant_of(key, other)
        except RequestRefusedError as error:
            return responses.refused(error)
        except TryLaterError as error:
            return responses.not_now(error)
        return responses.document(document)


def _segment(key: str) -> bytes:
    integrations = {"Segment.io": {"apiKey": key}}
    return msgspec.json.encode({"integrations": integrations, "metrics": {"sampleRate": 0}, "plan": {}})


_RUDDERSTACK = msgspec.json.encode(
    {
        "source": {
            "id": "pipeline-platform",
            "name": "pipeline-platform",
            "workspaceId": "pipeline-platform",
            "enabled": True,
            "config": {"statsCollection": {"errors": {"enabled": False}, "metrics": {"enabled": False}}},
            "dataplanes": {},
            "destinations": [],
        }
    }
)
