"""From a request's bytes to accepted and rejected events: each rule, and one property over any bytes."""

import base64
import json
import tracemalloc
import uuid
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_platform.errors import RequestRefusedError
from pipeline_platform.event.reader import Limits
from pipeline_platform.event.types import EventType, TenantId
from pipeline_platform.gateway.protocol import (
    Judged,
    OpenedRequest,
    judge,
    key_of_header,
    key_of_query,
    keys_of_body,
    open_invalid_request,
    open_ndjson,
    open_request,
)

LIMITS = Limits(event_bytes_max=2_000, nesting_max=16, id_bytes_max=64)
TENANT = TenantId(7)
GOOD = b'{"type":"track","event":"x","userId":"u","messageId":"good"}'


def opened(body: bytes, kind: EventType | None = None, events_max: int = 100) -> OpenedRequest:
    return open_request(kind, body, LIMITS, events_max) or open_invalid_request(kind, body, LIMITS, events_max)


def judged(body: bytes, kind: EventType | None = None, idempotency_key: str | None = None) -> Judged:
    return judge(opened(body, kind), TENANT, LIMITS, idempotency_key)


def refusal(body: bytes, kind: EventType | None = None, events_max: int = 100) -> tuple[int, str]:
    with pytest.raises(RequestRefusedError) as refused:
        opened(body, kind, events_max)
    return refused.value.status, refused.value.code


def batch(*events: bytes, more: bytes = b"") -> bytes:
    return b'{"batch": [' + b" , ".join(events) + b"]" + more + b"}"


def test_each_event_keeps_its_exact_bytes() -> None:
    events = [b'{ "type" : "track","event":"x", "userId":1.0,\t"n":12345678901234567890123 }', GOOD]
    found = judged(batch(*events))
    assert [event.payload for event in found.accepted] == events
    assert found.accepted_at == [0, 1]


def test_one_bad_event_costs_no_neighbour() -> None:
    bad = b'{"type":"track","userId":"u"}'
    found = judged(batch(GOOD, bad, GOOD))
    assert [event.payload for event in found.accepted] == [GOOD, GOOD]
    assert found.accepted_at == [0, 2]
    assert [(event.payload, event.code) for event in found.rejected] == [(bad, "missing_field")]
    assert found.rejected_at == [1]


# What no parser reads, or PostgreSQL cannot hold, as one event among others.
BAD_EVENTS = {
    b'{"type":"track","event":"x","userId":"u","n":NaN}': "invalid_json",
    b'{"type":"track","event":"x","userId":"u","n":Infinity}': "invalid_json",
    b'{"type":"track","event":"x","userId":"u","n":"\x00"}': "invalid_json",
    b'{"type":"track","event":"x","userId":"u","n":"\\x"}': "invalid_json",
    b'{"type":"track","event":"x","userId":"u","n":"\xff\xfe"}': "invalid_utf8",
    b'{"type":"track","event":"x","userId":"u","n":"\\u0000"}': "nul_character",
    b'{"type":"track","event":"x","userId":"u","n":"\\ud800"}': "lone_surrogate",
    b'{"type":"track","event":"x","userId":"u","n":1e999999}': "number_out_of_range",
    b'{"type":"track","event":"x","userId":"u","n":' + b"[" * 16 + b"]" * 16 + b"}": "nesting_too_deep",
    b'{"type":"track","event":"x","userId":"u","n":' + b"[" * 900 + b"]" * 900 + b"}": "nesting_too_deep",
    b'{"type":"track","event":"x","userId":"u","n":"' + b"a" * 2_000 + b'"}': "event_too_large",
    b'{"type":"track","event":"x","userId":"u","n":' + b"[" * 9_000 + b"]" * 9_000 + b"}": "event_too_large",
    b'{"type":"track",,"event":"x"}': "invalid_json",
    b"{(}": "invalid_json",
    b"undefined": "invalid_json",
    b"17": "not_an_object",
    b'"]}"': "not_an_object",
    b"null": "not_an_object",
    b"[1,2]": "not_an_object",
}


@pytest.mark.parametrize(("bad", "code"), BAD_EVENTS.items(), ids=[str(key[-30:]) for key in BAD_EVENTS])
def test_whatever_is_wrong_with_one_event_99_others_are_accepted(bad: bytes, code: str) -> None:
    found = judged(batch(*[GOOD] * 50, bad, *[GOOD] * 49, more=b', "sentAt": "2026-01-01T00:00:00Z"'))
    assert [(event.payload, event.code) for event in found.rejected] == [(bad, code)]
    assert found.rejected_at == [50]
    assert len(found.accepted) == 99
    assert {event.envelope for event in found.accepted} == {b'{"sentAt":"2026-01-01T00:00:00Z"}'}


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"", (400, "invalid_json")),
        (b"{", (400, "invalid_json")),
        (b"nonsense", (400, "invalid_json")),
        (b'{"batch":[}', (400, "invalid_json")),
        (b'{"batch":[{"a":"}]}', (400, "invalid_json")),
        (b'{"batch":[{]}]}', (400, "invalid_json")),
        (b'{"batch":[1,]}', (400, "invalid_json")),
        (b'{"batch":[,]}', (400, "invalid_json")),
        (b'{"batch":[]} {"batch":[]}', (400, "invalid_json")),
        (b'{"batch":[]},', (400, "invalid_json")),
        (b'{"batch":[NaN] 1}', (400, "invalid_json")),
        (b'{"batch":[NaN], "\\x": 1}', (400, "invalid_json")),
        (b'{"batch":[NaN], 17}', (400, "invalid_json")),
        (b"[{]}]", (400, "invalid_json")),
        (b"[1] [2]", (400, "invalid_json")),
        (b"null", (400, "invalid_envelope")),
        (b'{"batch":{}}', (400, "invalid_envelope")),
        (b'{"batch":null}', (400, "invalid_envelope")),
        (b"{}", (400, "missing_batch")),
        (b'{"n":NaN}', (400, "missing_batch")),
        (b'{"batch":[1],"batch":[2]}', (400, "two_batches")),
        (b'{"batch":[NaN],"batch":[2]}', (400, "two_batches")),
        (b'{"batch":[],"writeKey":{}}', (400, "invalid_write_key")),
        (b'{"batch":[],"writeKey":"\xff"}', (400, "invalid_write_key")),
        (b'\xff\xfe{\x00"\x00', (400, "invalid_json")),
    ],
)
def test_requests_that_cannot_be_read(body: bytes, answer: tuple[int, str]) -> None:
    assert refusal(body) == answer


def test_too_many_events() -> None:
    assert len(opened(batch(*[GOOD] * 3), events_max=3).events) == 3
    assert refusal(batch(*[GOOD] * 4), events_max=3) == (413, "too_many_events")
    assert refusal(batch(*[GOOD] * 3, b"NaN"), events_max=3) == (413, "too_many_events")


def test_so_many_elements_that_none_of_them_is_kept() -> None:
    assert refusal(b"[" + b"1," * 400_000 + b"1]") == (413, "too_many_events")
    assert refusal(b'{"batch":[' + b"1," * 400_000 + b"1]}") == (413, "too_many_events")


def test_an_array_is_a_batch_without_an_envelope() -> None:
    assert [event.payload for event in judged(b" [" + GOOD + b", " + GOOD + b"] ").accepted] == [GOOD, GOOD]
    assert judged(b"[]").accepted == []
    found = judged(b'\xef\xbb\xbf[{"n": NaN}, ' + GOOD + b"]")
    assert [event.payload for event in found.accepted] == [GOOD]
    assert [event.code for event in found.rejected] == ["invalid_json"]
    assert refusal(b"[1,2,3]", events_max=2) == (413, "too_many_events")


def test_lines_are_a_batch_without_an_envelope() -> None:
    found = judge(open_ndjson(GOOD + b"\r\n\n{\n" + GOOD, LIMITS, 3), TENANT, LIMITS, None)
    assert ([event.payload for event in found.accepted], found.accepted_at) == ([GOOD, GOOD], [0, 2])
    assert [event.code for event in found.rejected] == ["invalid_json"]
    assert open_ndjson(b"\xef\xbb\xbf \n\t{ } \r\n\x0b\n", LIMITS, 3).events == [b"{ }", b"\x0b"]
    assert open_ndjson(b"\r\n" * 100_000, LIMITS, 3).events == []
    with pytest.raises(RequestRefusedError) as refused:
        open_ndjson(b"1\n" * 4, LIMITS, 3)
    assert (refused.value.status, refused.value.code) == (413, "too_many_events")


def test_no_more_lines_are_made_than_a_request_may_have() -> None:
    body = b"1\n" * 1_000_000
    tracemalloc.start()
    with pytest.raises(RequestRefusedError, match="more than 3 events"):
        open_ndjson(body, LIMITS, 3)
    assert tracemalloc.get_traced_memory()[1] < len(body)
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("body", "keys"),
    [
        (b'{"batch":[{"writeKey":"a"}],"writeKey":"b"}', ["b"]),
        (b'{"writeKey":17}', ["17"]),
        (b"[]", []),
        (b"{}", []),
        (b'{"batch":[{"writeKey":"a"},NaN],"writeKey" : "b"}', ["a", "b"]),
        (b'{"n":NaN,"writeKey":17}', ["17"]),
        (b'{"n":NaN' + b',"writeKey":"a"' * 99, ["a"]),
        (b"nonsense", []),
    ],
)
def test_the_keys_that_a_body_may_have(body: bytes, keys: list[str]) -> None:
    assert keys_of_body(body) == keys


@pytest.mark.parametrize(
    ("query", "key"),
    [(b"", None), (b"a=b", None), (b"writeKey=", None), (b"writeKey=k%20l&t=1", "k l"), (b"a=1&" * 200, None)],
)
def test_the_key_of_the_query(query: bytes, key: str | None) -> None:
    assert key_of_query(query) == key


def test_the_word_batch_inside_events_is_no_second_batch() -> None:
    event = b'{"type":"track","event":"x","userId":"u","batch":{"batch":1}}'
    found = judged(batch(event, event, more=b',"context":{"batch":"batch"}'))
    assert len(found.accepted) == 2


def test_no_events_and_a_byte_order_mark() -> None:
    assert opened(b'\xef\xbb\xbf{"batch":[]}').events == []
    assert judged(b"\xef\xbb\xbf" + GOOD, EventType.PAGE).accepted[0].payload == GOOD


@pytest.mark.parametrize(
    ("more", "envelope"),
    [
        (b"", b""),
        (b',"context":null,"sentAt":null', b""),
        (b', "context" : {"a": 1} ', b'{"context":{"a": 1}}'),
        (b',"sentAt":"2026-01-01T00:00:00Z"', b'{"sentAt":"2026-01-01T00:00:00Z"}'),
        (
            b',"sentAt":"2026-01-01","context":{"n":1e40,"t":"\\u00e9"},"integrations":{"all":true}',
            b'{"context":{"n":1e40,"t":"\\u00e9"},"integrations":{"all":true},"sentAt":"2026-01-01"}',
        ),
        (b',"sentAt":"soon"', b'{"sentAt":"soon"}'),
        (b',"sentAt":"%s"' % (b"9" * 99), b""),
        (b',"sentAt":17', b""),
        (b',"sentAt":"\\u0000"', b""),
        (b',"sentAt":{"a":1},"context":{}', b'{"context":{}}'),
    ],
)
@pytest.mark.parametrize("broken", [False, True])
def test_the_envelope_that_is_kept(more: bytes, envelope: bytes, broken: bool) -> None:
    events = [GOOD, b"NaN"] if broken else [GOOD]
    assert [event.envelope for event in judged(batch(*events, more=more)).accepted] == [envelope]


@pytest.mark.parametrize(
    ("context", "code"),
    [
        (b'{"a":"\\u0000"}', "nul_character"),
        (b'{"a":"\\udc00"}', "lone_surrogate"),
        (b'{"a":"\xff"}', "invalid_utf8"),
        (b'{"a":1e999999}', "number_out_of_range"),
        (b'{"a":NaN}', "invalid_json"),
        (b'{"a":' + b"[" * 15 + b"]" * 15 + b"}", "nesting_too_deep"),
        (b'{"a":' + b"[" * 9_000 + b"]" * 9_000 + b"}", "event_too_large"),
        (b'{"a":"' + b"a" * 2_000 + b'"}', "event_too_large"),
        (b"[]", "invalid_field"),
        (b'"text"', "invalid_field"),
        (b"17", "invalid_field"),
    ],
)
def test_a_context_that_cannot_be_kept_rejects_all_events_with_its_reason(context: bytes, code: str) -> None:
    found = judged(batch(GOOD, b'{"type":"page","userId":"u"}', more=b',"context":' + context))
    assert found.accepted == []
    assert [event.code for event in found.rejected] == [code, code]
    assert all("context" in event.message for event in found.rejected)
    assert "\0" not in found.rejected[0].message


@pytest.mark.parametrize("kind", list(EventType))
def test_single_events(kind: EventType) -> None:
    body = b' {"event":"x","userId":"u","groupId":"g","previousId":"p","writeKey":"k","sentAt":"2026-01-01"} '
    request = opened(body, kind)
    assert request.write_key == "k"
    event = judge(request, TENANT, LIMITS, None).accepted[0]
    assert (event.type, event.payload, event.envelope) == (kind, body, b"")


def test_a_broken_single_event_is_quarantined_where_its_bounds_are_clear() -> None:
    body = b'{"event":"x","userId":"u","writeKey":"k","n":NaN}'
    request = opened(body, EventType.TRACK)
    assert request.write_key == "k"
    assert [event.code for event in judge(request, TENANT, LIMITS, None).rejected] == ["invalid_json"]
    assert refusal(b'{"event":"x', EventType.TRACK) == (400, "invalid_json")
    assert refusal(b"[]", EventType.TRACK) == (400, "invalid_envelope")


def test_ids_without_message_id() -> None:
    event = b'{"type":"track","event":"x","userId":"u"}'
    body = batch(event, event)

    def ids(key: str | None, tenant: int = TENANT) -> list[uuid.UUID]:
        return [one.event_id for one in judge(opened(body), TenantId(tenant), LIMITS, key).accepted]

    assert ids("k") == ids("k")
    assert len({*ids("k"), *ids("l"), *ids("k", tenant=8), *ids(None), *ids(None)}) == 10


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (None, None),
        (b"", None),
        (b"Bearer abc", None),
        (b"Basic " + base64.b64encode(b"key:"), "key"),
        (b"basic  " + base64.b64encode(b"key"), "key"),
        (b"BASIC " + base64.b64encode(b"key:secret:more"), "key"),
        (b"Basic " + base64.b64encode(b"ab:").rstrip(b"="), "ab"),
        (b"Basic " + base64.b64encode(b":password"), None),
        (b"Basic", None),
        (b"Basic =", None),
        (b"Basic \xff\xfe", None),
        (b"Basic " + base64.b64encode(b"\xff:"), "�"),
    ],
)
def test_the_key_of_the_header(header: bytes | None, key: str | None) -> None:
    assert key_of_header(header) == key


@pytest.mark.parametrize(("token", "key"), [(b'"k"', "k"), (b"17", "17"), (b"null", None), (b'""', None)])
def test_the_key_of_the_body(token: bytes, key: str | None) -> None:
    assert opened(b'{"batch":[],"writeKey":' + token + b"}").write_key == key


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet=st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
_SPACE = b" \t\r\n"
_FIELDS = ["type", "event", "userId", "anonymousId", "messageId", "timestamp", "properties", "context", "batch"]


def _field_values() -> st.SearchStrategy[Any]:
    return st.sampled_from(["track", "page", "x", "2026-01-01", 1, None, {}]) | _VALUES


_EVENTS = st.one_of(
    st.just(GOOD),
    st.sampled_from([event for event in BAD_EVENTS if event != b'{"type":"track",,"event":"x"}']),
    st.dictionaries(st.sampled_from(_FIELDS), _field_values()).map(lambda fields: json.dumps(fields).encode()),
    _VALUES.map(lambda value: json.dumps(value).encode()),
    _VALUES.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    st.binary(min_size=1, max_size=12).filter(lambda junk: not set(junk) & set(b'"{}[],') and bool(junk.strip(_SPACE))),
)  # fmt: skip


@given(events=st.lists(_EVENTS, max_size=6), space=st.sampled_from([b",", b" ,\n"]))
def test_every_event_is_accepted_or_rejected_with_its_bytes(events: list[bytes], space: bytes) -> None:
    """Never both, never neither, whatever the bytes of an event are."""
    events = [event.strip(_SPACE) for event in events]
    found = judged(b'{"batch":[' + space.join(events) + b"]}")
    ends = dict(zip(found.accepted_at, found.accepted, strict=True)) | dict(
        zip(found.rejected_at, found.rejected, strict=True)
    )
    assert len(found.accepted) + len(found.rejected) == len(events)
    assert [ends[position].payload for position in range(len(events))] == events
    for event in found.accepted:
        assert json.loads(event.payload)["type"] == event.type
    for event in found.rejected:
        assert event.message.encode()
        assert "\0" not in event.message + (event.message_id or "")


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:\\batch 1n', max_size=60).map(str.encode))
def test_any_body_is_judged_or_refused(body: bytes) -> None:
    for kind in (None, EventType.PAGE):
        for text in (body, b'{"batch":[' + body + b"]}"):
            try:
                found = judged(text, kind)
            except RequestRefusedError as refused:
                assert (refused.status, bool(refused.code)) == (400, True)
            else:
                positions = sorted(found.accepted_at + found.rejected_at)
                assert positions == list(range(len(positions)))


@pytest.mark.parametrize("part", ["context", "integrations"])
@pytest.mark.parametrize(("events", "is_accepted"), [(80, True), (100, False)])
def test_what_is_around_the_events_is_bounded_with_all_its_copies(part: str, events: int, is_accepted: bool) -> None:
    more = b',"%s":{"x":"%s"}' % (part.encode(), b"x" * 200_000)
    limits = replace(LIMITS, event_bytes_max=256 << 10)
    request = open_request(None, batch(*[GOOD] * events, more=more), limits, 100)
    assert request
    found = judge(request, TENANT, limits, None)
    assert len(found.accepted) == (events if is_accepted else 0)
    assert {event.code for event in found.rejected} == (set() if is_accepted else {"event_too_large"})
    assert all("send fewer events" in event.message for event in found.rejected)
