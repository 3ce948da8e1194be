"""Turns a batch's events into the requests that an SDK would have sent. Pure.

The original bytes are unchanged, except that the type and the messageId are added where only a single-event route or
the gateway knew them. Without them the old pipeline could not read the event or would give it another identity.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from pipeline_platform.event.types import QueuedEvent

# Below Segment's limit of 500 KB a request. A larger event is sent alone.
_EVENTS_MAX = 500
_BYTES_MAX = 450_000
_NOTHING = (b"", b"null", b'""')


class _Named(msgspec.Struct, gc=False):
    type: msgspec.Raw = msgspec.Raw()
    messageId: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Named).decode


def requests_of(events: Iterable[QueuedEvent]) -> Iterator[list[QueuedEvent]]:
    """The events of each request, in order: of one tenant, with the same envelope, within the size limit."""
    groups: dict[tuple[int, bytes], list[QueuedEvent]] = defaultdict(list)
    for event in events:
        groups[(event.tenant_id, event.envelope)].append(event)
    for group in groups.values():
        start = size = 0
        for index, event in enumerate(group):
            if index > start and (index - start == _EVENTS_MAX or size + len(event.payload) > _BYTES_MAX):
                yield group[start:index]
                start, size = index, 0
            size += len(event.payload)
        yield group[start:]


def body_of(events: Sequence[QueuedEvent]) -> bytes:
    """The body of a batch request: events with the same envelope, and that envelope."""
    around = events[0].envelope.strip()[1:-1].strip()
    batch = b",".join(map(_complete, events))
    return b'{"batch":[' + batch + b"]" + (b"," + around if around else b"") + b"}"


def _complete(event: QueuedEvent) -> bytes:
    """The event's bytes, with type and messageId added if needed. Parsers take the last of two equal keys."""
    named = _decode(event.payload)
    more = b""
    if bytes(named.type) != b'"' + event.type.value.encode() + b'"':
        more += b',"type":"' + event.type.value.encode() + b'"'
    if bytes(named.messageId) in _NOTHING:
        more += b',"messageId":"' + str(event.event_id).encode() + b'"'
    return event.payload.rstrip()[:-1] + more + b"}" if more else event.payload
