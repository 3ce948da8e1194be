"""Whatever the gateway accepts becomes a row: over the whole grammar of events and of what is around them."""

import itertools
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import psycopg
from hypothesis import HealthCheck, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from pipeline_platform.errors import RequestRefusedError
from pipeline_platform.event.reader import Limits
from pipeline_platform.event.types import AcceptedEvent, EventType, Lane, TenantId
from pipeline_platform.gateway.protocol import judge, open_invalid_request, open_ndjson, open_request
from pipeline_platform.queue.batches import claim
from pipeline_platform.settings import Settings
from pipeline_platform.worker.engine import Engine
from pipeline_platform_tests.support.queue import accept

Conn = psycopg.Connection[Any]
LIMITS = Limits.of(Settings())
_GOOD: dict[str, Any] = {
    "messageId": "m", "userId": "u", "anonymousId": "a", "groupId": "g", "previousId": "p", "event": "e", "name": "n",
    "properties": {"a": 1}, "traits": {"plan": "pro"}, "context": {"ip": "10.0.0.1"},
}  # fmt: skip
_FIELDS = (
    *_GOOD, "type", "timestamp", "originalTimestamp", "receivedAt", "sentAt", "integrations", "category", "channel",
    "_metadata", "metadata", "writeKey", "unknown", "", "é\n",
)  # fmt: skip
# Each type of JSON, and the edges of each; as text, because several cannot be written by json.dumps.
_VALUES = (
    "null", "true", "false", "0", "-0", "-1", "1.50", "1e3", "1e400", "-1e-400", "123456789012345678901234567890",
    '""', '"x"', '"\\u00e9\\ud83d\\ude00"', '"\\u0001"', '"%s"' % ("x" * 1_024), '"%s"' % ("é" * 3_000),
    '"2026-01-02T03:04:05Z"', '"2026-01-02t03:04:05z"', '"0001-01-01T00:00:00Z"', '"9999-12-31T23:59:59.999999Z"',
    '"0001-01-01T00:00:00+23:59"', '"4713-01-01T00:00:00 BC"', "[]", "[[]]", "[null]", "{}", '{"a":{"b":[{}]}}',
    '{"%s":1}' % ("k" * 3_000), '{"":""}', '{"groupId":{},"traits":[]}', "[" * 60 + "]" * 60,
)  # fmt: skip
# Where a value may stand: a field of the event, of its context, of the envelope, of the envelope's context.
_PLACES_IN_CONTEXT = ("groupId", "traits", "ip", "library", "unknown")
_PLACES_AROUND = ("context", "sentAt", "integrations", "unknown")


def accepted(tenant: TenantId, body: bytes, kind: EventType | None = None) -> list[AcceptedEvent]:
    try:
        request = open_request(kind, body, LIMITS, 100_000) or open_invalid_request(kind, body, LIMITS, 100_000)
    except RequestRefusedError:
        return []
    return judge(request, tenant, LIMITS, None).accepted


def assert_all_become_rows(conn: Conn, engine: Engine, events: Sequence[AcceptedEvent]) -> None:
    if not events:
        return
    accept(conn, *events)
    done = engine.step(lambda own: claim(own, Lane.LIVE, 100, 0))
    letters = conn.execute(
        "SELECT failed_in, error_class, error, convert_from(payload, 'UTF8'), convert_from(envelope, 'UTF8')"
        " FROM queue.dead_letters LIMIT 3"
    ).fetchall()
    assert not letters
    assert done.claimed == done.delivered + done.duplicate == len(events)


def written(event: dict[str, str]) -> str:
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in event.items()) + "}"


def batch_of(events: Iterable[str], around: str = "") -> bytes:
    return f'{{"batch":[{",".join(events)}]{around}}}'.encode()


def every_event() -> Iterator[str]:
    """Each type of event with each field replaced by each value, at each place."""
    for kind, value in itertools.product(EventType, _VALUES):
        good = {name: json.dumps(it) for name, it in _GOOD.items()} | {"type": json.dumps(kind.value)}
        for field in _FIELDS:
            yield written(
                {"messageId": f'"{uuid.uuid4()}"'} | good | {"messageId": f'"{uuid.uuid4()}"'} | {field: value}
            )
        for place in _PLACES_IN_CONTEXT:
            event = good | {"messageId": f'"{uuid.uuid4()}"', "context": written({place: value})}
            yield written({name: it for name, it in event.items() if name != "traits"})


def test_each_field_of_each_type_with_each_value(conn: Conn, engine: Engine, tenant: TenantId) -> None:
    events = accepted(tenant, batch_of(every_event()))
    assert len(events) > 2_000
    assert_all_become_rows(conn, engine, events)


def test_an_array_and_lines_are_read_as_a_batch_is(tenant: TenantId) -> None:
    events = list(every_event())
    lines = judge(open_ndjson("\n".join(events).encode(), LIMITS, 100_000), tenant, LIMITS, None).accepted
    array = accepted(tenant, f"[{','.join(events)}]".encode())
    # An event without a messageId gets a random identity.
    read = [
        [(event.type, event.client_at, event.payload, event.envelope) for event in form]
        for form in (accepted(tenant, batch_of(events)), array, lines)
    ]
    assert len(read[0]) > 2_000
    assert read[0] == read[1] == read[2]


def test_each_value_around_the_events(conn: Conn, engine: Engine, tenant: TenantId) -> None:
    events: list[AcceptedEvent] = []
    plain = {name: json.dumps(it) for name, it in _GOOD.items() if name not in ("context", "messageId", "traits")}
    for value in _VALUES:
        around = [f"{json.dumps(place)}:{value}" for place in _PLACES_AROUND]
        around += [f'"context":{written({place: value})}' for place in _PLACES_IN_CONTEXT]
        for part in around:
            batch = [written(plain | {"type": json.dumps(kind.value)}) for kind in EventType]
            events += accepted(tenant, batch_of(batch, f",{part}"))
        for kind in EventType:
            events += accepted(tenant, written(plain | {"sentAt": value, "type": value}).encode(), kind)
    assert len(events) > 500
    assert_all_become_rows(conn, engine, events)


def test_the_request_that_stopped_everybody(conn: Conn, engine: Engine, tenant: TenantId) -> None:
    event = '{"type":"track","event":"e","userId":"u","sentAt":{},"context":{"groupId":{}}}'
    events = accepted(tenant, batch_of([event] * 300, ',"sentAt":{}'))
    assert len(events) == 300
    assert_all_become_rows(conn, engine, events)


_LEAVES = st.sampled_from(_VALUES) | st.text(max_size=8).map(json.dumps) | st.integers().map(str)
_JSON = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]")
        | st.dictionaries(st.sampled_from([*_FIELDS, *_PLACES_IN_CONTEXT]), inner, max_size=3).map(written)
    ),
    max_leaves=8,
)
_EVENTS = st.builds(
    lambda kind, good, odd: written(
        {name: json.dumps(_GOOD[name]) for name in good} | {"type": json.dumps(kind)} | odd
    ),
    st.sampled_from([kind.value for kind in EventType]),
    st.sets(st.sampled_from(sorted(_GOOD))),
    st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=4),
)
_AROUND = st.dictionaries(st.sampled_from(_PLACES_AROUND), _JSON, max_size=3)


@given_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(_EVENTS, min_size=1, max_size=20), around=_AROUND)
def test_any_request(conn: Conn, engine: Engine, tenant: TenantId, events: list[str], around: dict[str, str]) -> None:
    body = written(around | {"batch": f"[{','.join(events)}]"}).encode("utf-8", "surrogatepass")
    assert_all_become_rows(conn, engine, accepted(tenant, body))
