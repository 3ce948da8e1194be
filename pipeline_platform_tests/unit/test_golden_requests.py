"""What real SDKs sent, byte by byte (golden/*.json), through the protocol."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline_platform.event import AcceptedEvent, RejectedEvent, TenantId, event_id_of
from pipeline_platform.event_reader import Limits
from pipeline_platform.gateway.bodies import Inflater, coding_of
from pipeline_platform.gateway.protocol import judge, key_of_header, open_request, salvage_request
from pipeline_platform.settings import Settings
from pipeline_platform_tests.capture_golden import GOLDEN, WRITE_KEY
from pipeline_platform_tests.support.sdks import AT, SDKS, TYPES

FILES = sorted(GOLDEN.glob("*.json"))
LIMITS = Limits.of(Settings())


def judged(request: dict[str, Any]) -> tuple[list[AcceptedEvent], list[RejectedEvent]]:
    headers = {name.lower(): value for name, value in request["headers"]}
    assert request["path"] == "/v1/batch"
    body = base64.b64decode(request["body"])
    coding = coding_of(headers.get("content-encoding", ""))
    if coding:
        inflater = Inflater(coding, 1 << 20)
        body = inflater.feed(body)
        inflater.end()
    arguments = (None, body, LIMITS, 2_500)
    opened = open_request(*arguments) or salvage_request(*arguments)
    assert key_of_header(headers["authorization"].encode()) == WRITE_KEY
    assert opened.write_key in (None, WRITE_KEY)
    found = judge(opened, TenantId(1), LIMITS, None)
    return found.accepted, found.rejected


def test_every_sdk_is_there() -> None:
    assert {name for name in SDKS.values() for path in FILES if path.name.startswith(name)} == set(SDKS.values())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_requests(path: Path) -> None:
    golden = json.loads(path.read_text())
    accepted: list[AcceptedEvent] = []
    rejected: list[RejectedEvent] = []
    for request in golden["requests"]:
        one, other = judged(request)
        accepted += one
        rejected += other
    assert [event.type for event in accepted] == TYPES
    assert [event.event_id for event in accepted] == [event_id_of(message_id) for message_id in golden["message_ids"]]
    assert [json.loads(event.payload)["messageId"] for event in accepted] == golden["message_ids"]
    assert accepted[1].client_at == AT
    assert all(event.client_at is not None for event in accepted)
    assert all("sentAt" in json.loads(event.envelope) for event in accepted)
    assert [(event.code, event.message_id) for event in rejected] == [("invalid_json", golden["unsound_message_id"])]
