"""From a batch's events to the requests that an SDK would have sent. Pure.

The original bytes pass as they are, save what a single route or the gateway knew and the bytes do not say: the type and
the messageId, without which the old pipeline could make no sense of an event, or another identity than we did.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from pipeline_platform.event.types import QueuedEvent

# What Segment's own limit of 500 KB a request leaves room for; an event that is larger goes alone.
_EVENTS_MAX = 500
_BYTES_MAX = 450_000
_NOTHING = (b"", b"null", b'""')


class _Named(msgspec.Struct, gc=False):
    type: msgspec.Raw = msgspec.Raw()
    messageId: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Named).decode


def requests_of(events: Iterable[QueuedEvent]) -> Iterator[list[QueuedEvent]]:
    """The events of each request, in their order: one tenant's with the same envelope, no more than a request holds."""
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
    """A batch request of events with the same envelope, and what was said around them."""
    around = events[0].envelope.strip()[1:-1].strip()
    batch = b",".join(map(_complete, events))
    return b'{"batch":[' + batch + b"]" + (b"," + around if around else b"") + b"}"


def _complete(event: QueuedEvent) -> bytes:
    """Its bytes, saying its type and messageId; of two equal keys readers take the last."""
    named = _decode(event.payload)
    more = b""
    if bytes(named.type) != b'"' + event.type.value.encode() + b'"':
        more += b',"type":"' + event.type.value.encode() + b'"'
    if bytes(named.messageId) in _NOTHING:
        more += b',"messageId":"' + str(event.event_id).encode() + b'"'
    return event.payload.rstrip()[:-1] + more + b"}" if more else event.payload
