"""What an event is, rule by rule."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline_platform.errors import InvalidEventError
from pipeline_platform.event.json_limits import doubts_of
from pipeline_platform.event.reader import Limits, read_event, rejected_event, text_of
from pipeline_platform.event.types import AcceptedEvent, EventType, TenantId, event_id_of

LIMITS = Limits(event_bytes_max=4_000, nesting_max=8, id_bytes_max=64)
TENANT = TenantId(7)
MADE = uuid.UUID(int=1)


def read(payload: bytes, kind: EventType | None = None) -> AcceptedEvent:
    return read_event(payload, TENANT, LIMITS, doubts_of(payload), lambda: MADE, kind=kind)


def track(**fields: Any) -> bytes:
    return json.dumps({"type": "track", "event": "Clicked", "userId": "u1", "messageId": "m1"} | fields).encode()


def reason(payload: bytes, kind: EventType | None = None) -> InvalidEventError:
    with pytest.raises(InvalidEventError) as refused:
        read(payload, kind)
    return refused.value


def test_a_whole_event() -> None:
    payload = track(timestamp="2026-01-02T03:04:05.678Z", properties={"a": 1}, context={}, traits=None)
    at = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
    assert read(payload) == AcceptedEvent(TENANT, event_id_of("m1"), EventType.TRACK, at, payload)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"type": "track", "event": "x"}, "userId"),
        ({"type": "track", "event": "x", "userId": "", "anonymousId": None}, "userId"),
        ({"type": "track", "userId": "u"}, "event"),
        ({"type": "track", "userId": "u", "event": ""}, "event"),
        ({"type": "group", "userId": "u"}, "groupId"),
        ({"type": "alias", "userId": "u"}, "previousId"),
        ({"type": "alias", "anonymousId": "a", "previousId": "p"}, "userId"),
        ({"userId": "u", "event": "x"}, "type"),
        ({"type": None, "userId": "u"}, "type"),
        ({"type": "", "userId": "u"}, "type"),
    ],
)
def test_required_fields(fields: dict[str, Any], field: str) -> None:
    error = reason(json.dumps(fields).encode())
    assert error.code == "missing_field"
    assert field in str(error)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "identify", "userId": "u"},
        {"type": "page", "anonymousId": "a"},
        {"type": "screen", "anonymousId": 17},
        {"type": "group", "userId": 1, "groupId": 2},
        {"type": "alias", "userId": "u", "previousId": 3},
        {"type": "track", "anonymousId": "a", "event": 404},
        {"type": "page", "userId": "u", "name": None, "properties": None},
        {"type": "page", "userId": "u", "anonymousId": "", "name": ""},
    ],
)
def test_the_least_of_every_type(fields: dict[str, Any]) -> None:
    event = read(json.dumps(fields).encode())
    assert (event.type, event.event_id) == (EventType(fields["type"]), MADE)


@pytest.mark.parametrize("kind", list(EventType))
def test_the_path_gives_the_type_of_a_single_event(kind: EventType) -> None:
    payload = b'{"userId":"u","event":"x","groupId":"g","previousId":"p","type":"nonsense"}'
    assert read(payload, kind).type is kind


@pytest.mark.parametrize("field", ["messageId", "userId", "anonymousId", "groupId", "previousId", "event", "name"])
@pytest.mark.parametrize("value", [True, [], {}, ["u"]])
def test_ids_and_names_are_text_or_numbers(field: str, value: object) -> None:
    error = reason(track(**{field: value}))
    assert (error.code, str(error).split()[0]) == ("invalid_field", field)


@pytest.mark.parametrize("field", ["properties", "traits", "context"])
@pytest.mark.parametrize("value", ["text", 1, [], True])
def test_what_must_be_an_object(field: str, value: object) -> None:
    error = reason(track(**{field: value}))
    assert (error.code, str(error).split()[0]) == ("invalid_field", field)


@pytest.mark.parametrize("field", ["messageId", "userId", "anonymousId", "groupId", "previousId", "event", "name"])
@pytest.mark.parametrize(("character", "most"), [("a", 64), ("é", 32), ("😀", 16)])
def test_length_counts_in_bytes(field: str, character: str, most: int) -> None:
    read(track(**{field: character * most}))
    assert reason(track(**{field: character * (most + 1)})).code == "too_long"


@pytest.mark.parametrize("kind", ["identify", "group"])
def test_names_of_traits_go_into_an_index_too(kind: str) -> None:
    fields = {"type": kind, "userId": "u", "groupId": "g"}
    read(json.dumps(fields | {"traits": {"n" * 64: "v" * 1_000}}).encode())
    assert reason(json.dumps(fields | {"traits": {"n" * 65: 1}}).encode()).code == "too_long"
    read(track(traits={"n" * 65: 1}))


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"1", "not_an_object"),
        (b"[]", "not_an_object"),
        (b"null", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"NaN", "invalid_json"),
        (b'{"type":"track","event":"x","userId":"u","properties":{"n":NaN}}', "invalid_json"),
        (b'{"type":"track","event":"x","userId":"u","properties":{"n":-Infinity}}', "invalid_json"),
        (b'{"type":"track","event":"x","userId":"u","properties":{"n":01}}', "invalid_json"),
        (b'{"type":"track","event":"x","userId":"u","properties":{"n":"\x01"}}', "invalid_json"),
        (b'{"type":"track","event":"x","userId":"u","properties":{"n":"\\x"}}', "invalid_json"),
        (b'{"type":"track","event":"x","userId":"u","properties":{"n":"\xff"}}', "invalid_utf8"),
        (b'{"type":"track","event":"x","userId":"u\\u0000"}', "nul_character"),
        (b'{"type":"track","event":"x","userId":"\\ud800"}', "lone_surrogate"),
        (b'{"type":"track","event":"x","userId":"u","properties":{"n":1e999999}}', "number_out_of_range"),
        (b'{"type":"track","event":"x","userId":"u","properties":' + b"[" * 8 + b"]" * 8 + b"}", "invalid_field"),
        (b'{"type":"track","event":"x","userId":"u","more":' + b"[" * 8 + b"]" * 8 + b"}", "nesting_too_deep"),
        (b'{"type":"track","event":"x","userId":"u","more":' + b"[" * 1_900 + b"]" * 1_900 + b"}", "nesting_too_deep"),
        (b'{"type":"teapot","userId":"u"}', "unknown_type"),
        (b'{"type":"Track","event":"x","userId":"u"}', "unknown_type"),
        (b'{"type":5,"userId":"u"}', "unknown_type"),
        (b'{"type":{},"userId":"u"}', "invalid_field"),
        (track(properties={"a": "a" * 4_000}), "event_too_large"),
    ],
)
def test_reasons(payload: bytes, code: str) -> None:
    assert reason(payload).code == code


def test_big_integers_are_kept() -> None:
    payload = b'{"type":"track","event":"x","userId":123456789012345678901234567890,"properties":{"n":2e40}}'
    assert read(payload).payload == payload


def test_the_last_of_equal_keys_counts() -> None:
    assert read(b'{"type":"track","event":"x","userId":"u","messageId":"a","messageId":"b"}').event_id == event_id_of(
        "b"
    )


@pytest.mark.parametrize(
    ("message_id", "event_id"),
    [
        ("0b4bf4e8-8b35-4dc1-9e10-3e2f6a3a2f0b", uuid.UUID("0b4bf4e8-8b35-4dc1-9e10-3e2f6a3a2f0b")),
        ("node-next-1700000000000-abc", event_id_of("node-next-1700000000000-abc")),
        (12, event_id_of("12")),
        ("", MADE),
        (None, MADE),
    ],
)
def test_identity(message_id: object, event_id: uuid.UUID) -> None:
    assert read(track(messageId=message_id)).event_id == event_id


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"timestamp": "2026-01-02T03:04:05Z"}, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ({"timestamp": "2026-01-02T03:04:05.123456789+05:30"}, datetime(2026, 1, 1, 21, 34, 5, 123_456, UTC)),
        ({"timestamp": "2026-01-02T03:04:05"}, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ({"timestamp": "2026-01-02 03:04:05.5"}, datetime(2026, 1, 2, 3, 4, 5, 500_000, UTC)),
        ({"timestamp": "2026-01-02"}, datetime(2026, 1, 2, tzinfo=UTC)),
        # What rudder-sdk-node sends where its user gave a time, and where not.
        ({"timestamp": "2020-01-01", "originalTimestamp": "2026-01-02T00:00:00Z"}, datetime(2020, 1, 1, tzinfo=UTC)),
        ({"originalTimestamp": "2026-01-02T00:00:00Z"}, datetime(2026, 1, 2, tzinfo=UTC)),
        ({"timestamp": "soon", "originalTimestamp": "2026-01-02T00:00:00Z"}, datetime(2026, 1, 2, tzinfo=UTC)),
        ({"timestamp": 5, "originalTimestamp": "2026-01-02T00:00:00Z"}, datetime(2026, 1, 2, tzinfo=UTC)),
        ({"timestamp": "2026-01-02T00:00:00Z", "originalTimestamp": {}}, datetime(2026, 1, 2, tzinfo=UTC)),
        # What another server received and corrected before.
        ({"timestamp": "2026-01-02", "originalTimestamp": "2026-01-01", "receivedAt": "2026-01-02"},
         datetime(2026, 1, 1, tzinfo=UTC)),
        ({"timestamp": "2026-01-02", "originalTimestamp": "2026-01-01", "receivedAt": {}},
         datetime(2026, 1, 2, tzinfo=UTC)),
        ({"timestamp": "2026-01-02t00:00:00z"}, datetime(2026, 1, 2, tzinfo=UTC)),
        ({"timestamp": "2026-01-02T00:00:00.5z"}, datetime(2026, 1, 2, microsecond=500_000, tzinfo=UTC)),
        ({"timestamp": "z"}, None),
        ({"timestamp": "9999-12-31T23:59:59Z"}, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ({"timestamp": "9999-12-31T23:59:59-01:00"}, None),
        ({"timestamp": "0001-01-01T00:00:00+01:00"}, None),
        ({"timestamp": "+012026-01-02T00:00:00Z"}, None),
        ({"timestamp": "2026-02-30T00:00:00Z"}, None),
        ({"timestamp": "yesterday"}, None),
        ({"timestamp": ""}, None),
        ({"timestamp": 1_700_000_000}, None),
        ({"timestamp": {"a": 1}}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_client_time_is_taken_unchanged_or_not_at_all(times: dict[str, Any], expected: datetime | None) -> None:
    assert read(track(**times)).client_at == expected


@pytest.mark.parametrize(
    ("payload", "message_id"),
    [
        (b'{"messageId":"m1","type":"x"}', "m1"),
        (b'{"messageId":17,"type":"x"}', "17"),
        (b'{"messageId":"m\\u0000"}', None),
        (b'{"messageId":{}}', None),
        (b'{"n":NaN,"messageId": "m2"}', "m2"),
        (b'{"n":NaN,"messageId":"\xff"}', "�"),
        (b'{"messageId":"' + b"m" * 100 + b'"}', "m" * 64),
        (b"[", None),
        (b"[" * 5_000, None),
        (b'{"a":1}', None),
    ],
)
def test_a_rejected_event_keeps_its_bytes_and_if_possible_its_id(payload: bytes, message_id: str | None) -> None:
    rejected = rejected_event(payload, TENANT, LIMITS, InvalidEventError("code", "why"))
    assert (rejected.payload, rejected.message_id) == (payload, message_id)
    assert (rejected.code, rejected.message, rejected.tenant_id) == ("code", "why", TENANT)


@pytest.mark.parametrize(
    ("token", "text"), [(b'"a\\u00e9"', "aé"), (b"-1.50", "-1.50"), (b"null", None), (b"", None), (b"1e3", "1e3")]
)
def test_text_of(token: bytes, text: str | None) -> None:
    assert text_of(token) == text


@pytest.mark.parametrize("token", [b"true", b"{}", b"[]"])
def test_text_of_what_is_none(token: bytes) -> None:
    with pytest.raises(ValueError, match="neither"):
        text_of(token)
