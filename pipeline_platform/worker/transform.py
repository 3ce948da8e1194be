"""From an event's original bytes to its row: pure, the same bytes always give the same row.

Numbers and strings of properties, traits and context pass as their JSON text, so nothing a parser would round is
rounded. What cannot be a row raises InvalidEventError and becomes a dead letter.
"""

from dataclasses import dataclass
from datetime import datetime

import msgspec

from pipeline_platform.client_time import parse_time
from pipeline_platform.errors import InvalidEventError
from pipeline_platform.event import EventType, QueuedEvent
from pipeline_platform.event_reader import text_of

# Part of every materialization and replay: raise it with each change of what a row holds.
TRANSFORM_VERSION = "1"

_Raw = msgspec.Raw
_NOTHING = (b"", b"null")


class _Body(msgspec.Struct):
    messageId: _Raw = _Raw()
    event: _Raw = _Raw()
    name: _Raw = _Raw()
    userId: _Raw = _Raw()
    anonymousId: _Raw = _Raw()
    groupId: _Raw = _Raw()
    previousId: _Raw = _Raw()
    properties: _Raw = _Raw()
    traits: _Raw = _Raw()
    context: _Raw = _Raw()
    sentAt: _Raw = _Raw()


class _Envelope(msgspec.Struct):
    context: dict[str, _Raw] = {}
    sentAt: _Raw = _Raw()


class _GroupOfContext(msgspec.Struct):
    groupId: _Raw = _Raw()


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_object = msgspec.json.Decoder(dict[str, _Raw]).decode
_decode_group = msgspec.json.Decoder(_GroupOfContext).decode


@dataclass(slots=True)
class Row:
    """One row of analytics.events before enrichment; JSON columns hold JSON text."""

    message_id: str
    type: EventType
    name: str | None
    user_id: str | None
    anonymous_id: str | None
    group_id: str | None
    previous_id: str | None
    occurred_at: datetime
    properties: bytes | None
    traits: bytes | None
    context: bytes | None


def _text(raw: _Raw) -> str | None:
    return text_of(bytes(raw))


def _json(raw: _Raw) -> bytes | None:
    token = bytes(raw)
    return None if token in _NOTHING else token


def _context(own: _Raw, around: dict[str, _Raw]) -> bytes | None:
    """The envelope's context under the event's own."""
    mine = _json(own)
    if not around:
        return mine
    return msgspec.json.encode({**around, **(_decode_object(mine) if mine else {})})


def _occurred_at(event: QueuedEvent, sent_at: datetime | None) -> datetime:
    """received_at − (sentAt − the client's own time): the client's clock need not be right, only steady."""
    if event.client_at is None:
        return event.received_at
    if sent_at is None:
        return event.client_at
    try:
        return event.received_at - (sent_at - event.client_at)
    except OverflowError:
        return event.received_at


def _group_id(kind: EventType, body: _Body, context: bytes | None) -> str | None:
    if kind is EventType.GROUP:
        return _text(body.groupId)
    if context and b'"groupId"' in context:
        return _text(_decode_group(context).groupId)
    return None


def transform(event: QueuedEvent) -> Row:
    """The row of one event. Raises InvalidEventError where its bytes are not what the gateway lets in."""
    try:
        body = _decode_body(event.payload)
        envelope = _decode_envelope(event.envelope) if event.envelope else _Envelope()
        context = _context(body.context, envelope.context)
        sent_at = _text(envelope.sentAt) or _text(body.sentAt)
        return Row(
            message_id=_text(body.messageId) or str(event.event_id),
            type=event.type,
            name=_text(body.event) if event.type is EventType.TRACK else _text(body.name),
            user_id=_text(body.userId),
            anonymous_id=_text(body.anonymousId),
            group_id=_group_id(event.type, body, context),
            previous_id=_text(body.previousId),
            occurred_at=_occurred_at(event, parse_time(sent_at) if sent_at else None),
            properties=_json(body.properties),
            traits=_json(body.traits),
            context=context,
        )
    except ValueError as error:
        raise InvalidEventError("undecodable", str(error)) from error


def message_id_of(payload: bytes) -> str | None:
    """The messageId of bytes that may not be an event at all; None where none can be read, or stored as text."""
    try:
        message_id = _text(_decode_body(payload).messageId)
    except ValueError:
        return None
    return None if message_id and "\0" in message_id else message_id


def traits_of(row: Row) -> dict[str, bytes]:
    """The traits that an identify or group event carries, by name, as JSON text."""
    if not row.traits or row.type not in (EventType.IDENTIFY, EventType.GROUP):
        return {}
    return {name: bytes(value) for name, value in _decode_object(row.traits).items()}
