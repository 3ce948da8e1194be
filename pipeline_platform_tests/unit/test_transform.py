"""From bytes to a row: what each field becomes, and that nothing is rounded, guessed or altered."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_platform.errors import InvalidEventError
from pipeline_platform.event.person_ids import message_id_of
from pipeline_platform.event.types import BatchId, EventType, Lane, QueuedEvent, TenantId
from pipeline_platform.worker.transform import Row, traits_of, transform

_RECEIVED_AT = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
_EVENT_ID = uuid.UUID("00000000-0000-4000-8000-000000000001")


def queued(
    payload: bytes | dict[str, Any],
    kind: EventType = EventType.TRACK,
    envelope: bytes = b"",
    client_at: datetime | None = None,
) -> QueuedEvent:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return QueuedEvent(
        TenantId(1),
        _EVENT_ID,
        kind,
        client_at,
        _RECEIVED_AT,
        body,
        envelope,
        Lane.LIVE,
        BatchId(1),
        0,
        _RECEIVED_AT,
        1,
        False,
    )


def row_of(payload: bytes | dict[str, Any], kind: EventType = EventType.TRACK, envelope: bytes = b"") -> Row:
    return transform(queued(payload, kind, envelope))


@pytest.mark.parametrize(
    ("kind", "payload", "field", "value"),
    [
        (EventType.TRACK, {"event": "Bought"}, "name", "Bought"),
        (EventType.TRACK, {"name": "not the event"}, "name", None),
        (EventType.PAGE, {"name": "Home"}, "name", "Home"),
        (EventType.SCREEN, {"name": "Home", "event": "x"}, "name", "Home"),
        (EventType.PAGE, {}, "name", None),
        (EventType.TRACK, {"messageId": "m"}, "message_id", "m"),
        (EventType.TRACK, {}, "message_id", str(_EVENT_ID)),
        (EventType.TRACK, {"messageId": None}, "message_id", str(_EVENT_ID)),
        (EventType.TRACK, {"messageId": ""}, "message_id", str(_EVENT_ID)),
        (EventType.TRACK, {"messageId": 17}, "message_id", "17"),
        (EventType.TRACK, {"userId": "u"}, "user_id", "u"),
        (EventType.TRACK, {"userId": 42}, "user_id", "42"),
        (EventType.TRACK, {"userId": None}, "user_id", None),
        (EventType.TRACK, b'{"userId":12345678901234567890123}', "user_id", "12345678901234567890123"),
        (EventType.TRACK, b'{"userId":1.50}', "user_id", "1.50"),
        (EventType.TRACK, b'{"userId":"\\u00e9\\ud83d\\ude00"}', "user_id", "é😀"),
        (EventType.TRACK, {"anonymousId": "a"}, "anonymous_id", "a"),
        (EventType.GROUP, {"groupId": "g"}, "group_id", "g"),
        (EventType.TRACK, {"groupId": "g"}, "group_id", None),
        (EventType.TRACK, {"context": {"groupId": "g"}}, "group_id", "g"),
        (EventType.TRACK, {"context": {"groupId": 7}}, "group_id", "7"),
        (EventType.GROUP, {"groupId": "own", "context": {"groupId": "other"}}, "group_id", "own"),
        (EventType.ALIAS, {"previousId": "p", "userId": "u"}, "previous_id", "p"),
        (EventType.TRACK, {"properties": None}, "properties", None),
        (EventType.TRACK, {"context": None}, "context", None),
        (EventType.IDENTIFY, {"traits": {"a": 1}}, "traits", b'{"a": 1}'),
        (EventType.TRACK, {}, "occurred_at", _RECEIVED_AT),
    ],
)
def test_each_field(kind: EventType, payload: bytes | dict[str, Any], field: str, value: object) -> None:
    assert getattr(row_of(payload, kind), field) == value


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"[]", b'"text"', b"17", b'{"userId":"\xff"}', b'{"a":1} {"b":2}', b'{"userId":"\\ud800"}',
     b'{"context":"text"}'],
)  # fmt: skip
def test_what_cannot_be_a_row_says_why(payload: bytes) -> None:
    with pytest.raises(InvalidEventError) as caught:
        transform(queued(payload, envelope=b'{"context":{"ip":"10.0.0.1"}}'))
    assert caught.value.code == "undecodable"
    assert str(caught.value)


_NUMBERS = [b"0.1", b"1.10", b"-0", b"1e400", b"123456789012345678901234567890.123456789", b"9007199254740993"]


@pytest.mark.parametrize("number", _NUMBERS)
def test_numbers_pass_as_they_were_written(number: bytes) -> None:
    value = b'{"n":%s}' % number
    row = row_of(
        b'{"properties":%b,"traits":%b,"context":%b}' % (value, value, value),
        envelope=b'{"context":{"around":%s}}' % number,
    )
    assert row.properties == value
    assert row.traits == value
    assert row.context is not None
    assert b'"n":' + number in row.context
    assert b'"around":' + number in row.context


@pytest.mark.parametrize(
    ("around", "own", "both"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"ip": "x"}, None, {"ip": "x"}),
        ({"ip": "x"}, {}, {"ip": "x"}),
        ({"ip": "x", "library": {"name": "l", "version": "1"}}, {"library": {"name": "own"}},
         {"ip": "x", "library": {"name": "own"}}),
        ({"ip": "x"}, {"ip": None}, {"ip": None}),
    ],
)  # fmt: skip
def test_the_envelopes_context_lies_under_the_events_own(around: object, own: object, both: object) -> None:
    envelope = json.dumps({"context": around, "sentAt": None}).encode()
    found = row_of({"context": own}, envelope=envelope).context
    assert found is not None
    assert json.loads(found) == both


def test_a_group_may_come_from_the_envelope() -> None:
    assert row_of({}, envelope=b'{"context":{"groupId":"g"}}').group_id == "g"


_HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("client_at", "sent_at", "occurred_at"),
    [
        # The client's clock is right, an hour slow, a year fast: only the time between its two readings counts.
        (_RECEIVED_AT - _HOUR, _RECEIVED_AT, _RECEIVED_AT - _HOUR),
        (_RECEIVED_AT - 2 * _HOUR, _RECEIVED_AT - _HOUR, _RECEIVED_AT - _HOUR),
        (_RECEIVED_AT + timedelta(days=365), _RECEIVED_AT + timedelta(days=365, hours=1), _RECEIVED_AT - _HOUR),
        # No sentAt: the client's word stands. No time of its own: the server's.
        (_RECEIVED_AT - _HOUR, None, _RECEIVED_AT - _HOUR),
        (None, _RECEIVED_AT - _HOUR, _RECEIVED_AT),
        # Forged or nonsense: a time, and no crash.
        (_RECEIVED_AT, "never", _RECEIVED_AT),
        (_RECEIVED_AT, "", _RECEIVED_AT),
        (_RECEIVED_AT, "9999-12-31T23:59:59Z", None),
        (datetime(1, 1, 1, tzinfo=UTC), "9999-12-31T23:59:59Z", _RECEIVED_AT),
        (datetime(9999, 12, 31, tzinfo=UTC), "0001-01-01T00:00:00Z", _RECEIVED_AT),
    ],
)
def test_the_clients_clock_is_corrected(
    client_at: datetime | None, sent_at: datetime | str | None, occurred_at: datetime | None
) -> None:
    text = sent_at.isoformat() if isinstance(sent_at, datetime) else sent_at
    envelope = json.dumps({"sentAt": text}).encode()
    row = transform(queued({"event": "x"}, envelope=envelope, client_at=client_at))
    assert row.occurred_at.tzinfo is not None
    if occurred_at is not None:
        assert row.occurred_at == occurred_at


@given(
    st.none() | st.datetimes(timezones=st.just(UTC)),
    st.one_of(st.none(), st.text(max_size=30), st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)),
)
def test_no_clock_makes_it_fail(client_at: datetime | None, sent_at: str | None) -> None:
    envelope = json.dumps({"sentAt": sent_at}).encode()
    assert transform(queued({"event": "x"}, envelope=envelope, client_at=client_at)).occurred_at.tzinfo is not None


@given(
    st.dictionaries(
        st.text(max_size=8), st.integers() | st.text(max_size=8) | st.floats(allow_nan=False, allow_infinity=False)
    )
)
def test_is_pure_and_keeps_the_bytes(properties: dict[str, Any]) -> None:
    written = json.dumps(properties).encode()
    payload = b'{"messageId":"m","event":"x","properties":' + written + b"}"
    assert row_of(payload) == row_of(payload)
    assert row_of(payload).properties == written


@pytest.mark.parametrize(
    ("kind", "traits", "found"),
    [
        (EventType.IDENTIFY, {"a": 1, "b": {"c": None}}, {"a": b"1", "b": b'{"c": null}'}),
        (EventType.GROUP, {"a": 1}, {"a": b"1"}),
        (EventType.TRACK, {"a": 1}, {}),
        (EventType.IDENTIFY, None, {}),
    ],
)
def test_traits_of_identify_and_group(kind: EventType, traits: object, found: dict[str, bytes]) -> None:
    assert traits_of(row_of({"userId": "u", "groupId": "g", "traits": traits}, kind)) == found


@pytest.mark.parametrize(
    ("payload", "found"),
    [(b'{"messageId":"m"}', "m"), (b'{"messageId":5}', "5"), (b"{}", None), (b"{", None), (b"\xff", None),
     (b'{"messageId":"\\ud800"}', None), (b'{"messageId":"a\\u0000b"}', None)],
)  # fmt: skip
def test_the_message_id_of_anything(payload: bytes, found: str | None) -> None:
    assert message_id_of(payload) == found


@pytest.mark.parametrize(
    ("kind", "payload", "envelope", "rest"),
    [
        (EventType.TRACK, b'{"event":"x","userId":"u"}', b"", None),
        (EventType.TRACK, b'{"integrations":{},"channel":null,"x":null,"y":{}}', b"", None),
        (EventType.TRACK, b'{"writeKey":"k"}', b"", None),
        (EventType.PAGE, b'{"category":"Docs","name":"Home"}', b"", {"category": "Docs"}),
        (EventType.TRACK, b'{"event":"x","name":"y","groupId":7}', b"", {"name": "y", "groupId": 7}),
        (EventType.GROUP, b'{"event":"x","name":"y","groupId":"g"}', b"", {"event": "x"}),
        (EventType.TRACK, b'{"timestamp":"soon","originalTimestamp":17,"sentAt":{"a":1}}', b"",
         {"timestamp": "soon", "originalTimestamp": 17, "sentAt": {"a": 1}}),
        (EventType.TRACK, b'{"integrations":{"All":true},"_metadata":{"nodeVersion":"20"},"channel":"server"}', b"",
         {"integrations": {"All": True}, "_metadata": {"nodeVersion": "20"}, "channel": "server"}),
        (EventType.TRACK, b'{"un\\"known\\u00e9":[1.50],"metadata":1,"rest":{"a":null}}', b"",
         {'un"knowné': [1.5], "metadata": 1, "rest": {"a": None}}),
        # Of the envelope what the event does not say itself.
        (EventType.TRACK, b'{"sentAt":"a"}', b'{"sentAt":"b","integrations":{"X":false}}',
         {"sentAt": "a", "integrations": {"X": False}}),
        (EventType.TRACK, b"{}", b'{"sentAt":"soon"}', {"sentAt": "soon"}),
    ],
)  # fmt: skip
def test_what_has_no_column_is_kept_in_rest(
    kind: EventType, payload: bytes, envelope: bytes, rest: dict[str, Any] | None
) -> None:
    found = row_of(payload, kind, envelope).rest
    assert (None if found is None else json.loads(found)) == rest


def test_rest_rounds_nothing() -> None:
    assert row_of(b'{"big":123456789012345678901234567890,"category":1.50}').rest == (
        b'{"category":1.50,"big":123456789012345678901234567890}'
    )


@pytest.mark.parametrize(
    ("payload", "envelope", "traits"),
    [
        # rudder-sdk-python and analytics-js.
        ({"context": {"traits": {"plan": "pro"}}}, b"", b'{"plan": "pro"}'),
        ({"traits": {}, "context": {"traits": {"plan": "pro"}}}, b"", b'{"plan": "pro"}'),
        ({"traits": {"a": 1}, "context": {"traits": {"plan": "pro"}}}, b"", b'{"a": 1}'),
        ({}, b'{"context":{"traits":{"plan":"pro"}}}', b'{"plan":"pro"}'),
        ({"context": {"traits": ["pro"]}}, b"", None),
        ({"context": {"traits": None}}, b"", None),
    ],
)
def test_the_traits_of_an_identify_may_be_in_its_context(payload: object, envelope: bytes, traits: bytes) -> None:
    assert row_of(json.dumps(payload).encode(), EventType.IDENTIFY, envelope).traits == traits
    # The context of other events says whose they are; it changes nobody.
    assert row_of(json.dumps(payload).encode(), EventType.GROUP, envelope).traits != b'{"plan": "pro"}'


@pytest.mark.parametrize("group_id", [{}, [], True, "g" * 2_001, "é" * 1_001])
def test_a_group_of_the_context_that_is_no_id_is_none(group_id: object) -> None:
    row = row_of({"event": "x", "context": {"groupId": group_id}})
    assert row.group_id is None
    assert row.context and b"groupId" in row.context


@pytest.mark.parametrize(
    ("payload", "client_at", "is_unusable"),
    [
        ({"timestamp": "soon"}, None, True),
        ({"originalTimestamp": 17}, None, True),
        ({"timestamp": "0001-01-01T00:00:00Z", "sentAt": "9999-12-31T23:59:59Z"}, datetime(1, 1, 1, tzinfo=UTC), True),
        ({"timestamp": None}, None, False),
        ({}, None, False),
        ({"timestamp": "2026-01-01"}, datetime(2026, 1, 1, tzinfo=UTC), False),
    ],
)
def test_a_time_that_nobody_can_read_is_noticed(
    payload: dict[str, Any], client_at: datetime, is_unusable: bool
) -> None:
    row = transform(queued(json.dumps(payload).encode(), client_at=client_at))
    assert row.is_time_unusable is is_unusable
    if is_unusable:
        assert row.occurred_at == _RECEIVED_AT
        assert row.rest


def test_a_sent_at_of_the_envelope_that_is_no_time_leaves_the_events_own() -> None:
    payload = {"sentAt": (_RECEIVED_AT - _HOUR).isoformat()}
    row = transform(queued(payload, envelope=b'{"sentAt":"soon"}', client_at=_RECEIVED_AT - 2 * _HOUR))
    assert row.occurred_at == _RECEIVED_AT - _HOUR
