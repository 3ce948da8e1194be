"""Makes an event's row from its original bytes. Pure: the same bytes always give the same row.

Numbers and strings of properties, traits and context stay JSON text, so no parser rounds them. Every event that
event_reader accepts has a row. Fields that need a certain form (times, context.groupId) are ignored in any other form.
Damaged bytes raise InvalidEventError, and the event becomes a dead letter.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from pipeline_platform.errors import InvalidEventError
from pipeline_platform.event.client_time import parse_time
from pipeline_platform.event.reader import text_of, usable_text
from pipeline_platform.event.types import EventType, QueuedEvent

# Part of every materialization and replay. Raise it with each change of what a row holds.
TRANSFORM_VERSION = "2"

_Raw = msgspec.Raw
_NOTHING = (b"", b"null")
# Values without content, which are not kept in `rest`. SDKs send `"integrations": {}` with every event.
_EMPTY = (b"null", b"{}")
# The largest value of PIPELINE_ID_BYTES_MAX.
_GROUP_ID_BYTES_MAX = 2_000


class _Body(msgspec.Struct, forbid_unknown_fields=True, rename={"metadata": "_metadata"}):
    """The fields that common SDKs send. An event with other fields is decoded a second time."""

    type: _Raw = _Raw()
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
    timestamp: _Raw = _Raw()
    originalTimestamp: _Raw = _Raw()
    sentAt: _Raw = _Raw()
    integrations: _Raw = _Raw()
    category: _Raw = _Raw()
    channel: _Raw = _Raw()
    metadata: _Raw = _Raw()
    writeKey: _Raw = _Raw()


class _Envelope(msgspec.Struct):
    context: dict[str, _Raw] = {}
    sentAt: _Raw = _Raw()
    integrations: _Raw = _Raw()


class _OfContext(msgspec.Struct):
    groupId: _Raw = _Raw()
    traits: _Raw = _Raw()


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_object = msgspec.json.Decoder(dict[str, _Raw]).decode
_decode_of_context = msgspec.json.Decoder(_OfContext).decode
_FIELDS = dict(zip(_Body.__struct_encode_fields__, _Body.__struct_fields__, strict=True))
# Envelopes kept in memory. Events of one request have the same envelope and are processed one after the other.
_ENVELOPES_KEPT = 32


@dataclass(frozen=True, slots=True)
class _Shared:
    """What an envelope gives to each of its events. context_text: the context of an event without its own."""

    context: dict[str, _Raw]
    context_text: bytes | None
    integrations: _Raw
    sent_at_text: _Raw
    sent_at: datetime | None


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
    # Fields without a column of their own, and the times as they were sent.
    rest: bytes | None = None
    # The event has a time that cannot be read. Its occurred_at is its received_at.
    is_time_unusable: bool = False


Transform = Callable[[QueuedEvent], Row]


def _text(raw: _Raw) -> str | None:
    return text_of(bytes(raw)) if raw else None


def _json(raw: _Raw) -> bytes | None:
    if not raw:
        return None
    token = bytes(raw)
    return None if token in _NOTHING else token


def _read_body(payload: bytes) -> tuple[_Body, dict[str, _Raw]]:
    """The fields of `_Body`, and all others."""
    try:
        return _decode_body(payload), {}
    except msgspec.ValidationError:
        fields = _decode_object(payload)
    return (
        _Body(**{_FIELDS[name]: value for name, value in fields.items() if name in _FIELDS}),
        {name: value for name, value in fields.items() if name not in _FIELDS},
    )


@functools.lru_cache(maxsize=_ENVELOPES_KEPT)
def _shared(envelope: bytes) -> _Shared:
    found = _decode_envelope(envelope) if envelope else _Envelope()
    text = msgspec.json.encode(found.context) if found.context else None
    return _Shared(found.context, text, found.integrations, found.sentAt, _time(found.sentAt))


def _context(own: _Raw, shared: _Shared) -> bytes | None:
    """The envelope's context, overwritten by the event's own."""
    mine = _json(own)
    if not shared.context:
        return mine
    return msgspec.json.encode({**shared.context, **_decode_object(mine)}) if mine else shared.context_text


def _add(found: list[bytes], name: bytes, raw: _Raw) -> None:
    token = bytes(raw)
    if token not in _EMPTY:
        found.append(name + token)


def _rest(kind: EventType, body: _Body, shared: _Shared, others: dict[str, _Raw]) -> bytes | None:
    """An object of the fields without a column, or None. A write key is a credential and is left out."""
    found: list[bytes] = []
    if body.timestamp:
        _add(found, b'"timestamp":', body.timestamp)
    if body.integrations or shared.integrations:
        _add(found, b'"integrations":', body.integrations or shared.integrations)
    if body.sentAt or shared.sent_at_text:
        _add(found, b'"sentAt":', body.sentAt or shared.sent_at_text)
    if body.originalTimestamp:
        _add(found, b'"originalTimestamp":', body.originalTimestamp)
    if body.channel:
        _add(found, b'"channel":', body.channel)
    if body.metadata:
        _add(found, b'"_metadata":', body.metadata)
    if body.category:
        _add(found, b'"category":', body.category)
    if body.groupId and kind is not EventType.GROUP:
        _add(found, b'"groupId":', body.groupId)
    if kind is EventType.TRACK:
        if body.name:
            _add(found, b'"name":', body.name)
    elif body.event:
        _add(found, b'"event":', body.event)
    if others:
        kept = {name: value for name, value in others.items() if bytes(value) not in _EMPTY}
        if kept:
            found.append(msgspec.json.encode(kept)[1:-1])
    return b"{" + b",".join(found) + b"}" if found else None


def _time(raw: _Raw) -> datetime | None:
    """The value as a time. None if it is none."""
    text = usable_text(bytes(raw)) if raw else None
    return parse_time(text) if text else None


def _occurred_at(event: QueuedEvent, sent_at: datetime | None) -> datetime | None:
    """received_at − (sentAt − the client's own time): the client's clock need not be right, only steady."""
    if event.client_at is None or sent_at is None:
        return event.client_at
    try:
        return event.received_at - (sent_at - event.client_at)
    except OverflowError:
        return None


def _group_and_traits(kind: EventType, body: _Body, context: bytes | None) -> tuple[str | None, bytes | None]:
    """The group id and the traits. Some SDKs of RudderStack send a user's traits only in an identify's context."""
    group_id = _text(body.groupId) if kind is EventType.GROUP else None
    traits = _json(body.traits)
    wants_group = kind is not EventType.GROUP and context is not None and b'"groupId"' in context
    wants_traits = kind is EventType.IDENTIFY and traits in (None, b"{}") and context is not None
    if context is not None and (wants_group or (wants_traits and b'"traits"' in context)):
        found = _decode_of_context(context)
        if wants_group:
            group_id = usable_text(bytes(found.groupId), _GROUP_ID_BYTES_MAX)
        if wants_traits and bytes(found.traits)[:1] == b"{":
            traits = bytes(found.traits)
    return group_id, traits


def transform(event: QueuedEvent) -> Row:
    """The row of one event. Raises InvalidEventError if the gateway would not accept its bytes."""
    try:
        body, others = _read_body(event.payload)
        shared = _shared(event.envelope)
        context = _context(body.context, shared)
        occurred_at = _occurred_at(event, shared.sent_at or _time(body.sentAt))
        group_id, traits = _group_and_traits(event.type, body, context)
        return Row(
            message_id=_text(body.messageId) or str(event.event_id),
            type=event.type,
            name=_text(body.event) if event.type is EventType.TRACK else _text(body.name),
            user_id=_text(body.userId),
            anonymous_id=_text(body.anonymousId),
            group_id=group_id,
            previous_id=_text(body.previousId),
            occurred_at=event.received_at if occurred_at is None else occurred_at,
            properties=_json(body.properties),
            traits=traits,
            context=context,
            rest=_rest(event.type, body, shared, others),
            is_time_unusable=occurred_at is None and bool(_json(body.timestamp) or _json(body.originalTimestamp)),
        )
    except ValueError as error:
        raise InvalidEventError("undecodable", str(error)) from error


def traits_of(row: Row) -> dict[str, bytes]:
    """The traits that an identify or group event carries, by name, as JSON text."""
    if not row.traits or row.type not in (EventType.IDENTIFY, EventType.GROUP):
        return {}
    return {name: bytes(value) for name, value in _decode_object(row.traits).items()}
