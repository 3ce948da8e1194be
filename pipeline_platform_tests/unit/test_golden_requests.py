"""What real SDKs sent, byte by byte (golden/*.json), through the protocol."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline_platform.event.reader import Limits
from pipeline_platform.event.types import (
    AcceptedEvent,
    BatchId,
    Lane,
    QueuedEvent,
    RejectedEvent,
    TenantId,
    event_id_of,
)
from pipeline_platform.gateway.bodies import Inflater, coding_of
from pipeline_platform.gateway.protocol import judge, key_of_header, open_invalid_request, open_request
from pipeline_platform.settings import Settings
from pipeline_platform.worker.transform import _read_body, transform  # pyright: ignore[reportPrivateUsage]
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
    opened = open_request(*arguments) or open_invalid_request(*arguments)
    assert key_of_header(headers["authorization"].encode()) == WRITE_KEY
    assert opened.write_key in (None, WRITE_KEY)
    found = judge(opened, TenantId(1), LIMITS, None)
    return found.accepted, found.rejected


def _queued(event: AcceptedEvent) -> QueuedEvent:
    now = datetime.now(UTC)
    return QueuedEvent(
        event.tenant_id,
        event.event_id,
        event.type,
        event.client_at,
        now,
        event.payload,
        event.envelope,
        Lane.LIVE,
        BatchId(1),
        0,
        now,
        1,
        False,
    )


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
    unsound = [("invalid_json", it) for it in [golden["unsound_message_id"]] if it]
    assert [(event.code, event.message_id) for event in rejected] == unsound
    rows = [transform(_queued(event)) for event in accepted]
    assert rows[0].traits
    assert msgspec.json.decode(rows[0].traits)["plan"] == "pro"
    assert msgspec.json.decode(rows[2].rest or b"{}")["category"] == "Docs"
    assert all(b"imestamp" in (row.rest or b"") and b"sentAt" in (row.rest or b"") for row in rows)
    # The fast way: common SDKs send no field that takes the transform a second look.
    assert all(not _read_body(event.payload)[1] for event in accepted)
