"""How the old pipeline parses requests and events: only what its own SDKs send. Pure."""

import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec

from pipeline_platform.event.reader import client_time, text_of, usable_text
from pipeline_platform.event.types import event_id_of
from pipeline_platform.migration.simulation.queueing import Message

_Raw = msgspec.Raw
_NOTHING = (b"", b"null")


class _Request(msgspec.Struct):
    batch: list[_Raw]
    context: _Raw = _Raw(b"null")


class _Identity(msgspec.Struct):
    messageId: _Raw = _Raw()


class _Event(_Identity):
    type: _Raw = _Raw()
    event: _Raw = _Raw()
    name: _Raw = _Raw()
    userId: _Raw = _Raw()
    anonymousId: _Raw = _Raw()
    groupId: _Raw = _Raw()
    previousId: _Raw = _Raw()
    originalTimestamp: _Raw = _Raw()
    timestamp: _Raw = _Raw()
    receivedAt: _Raw = _Raw()
    properties: _Raw = _Raw()
    traits: _Raw = _Raw()
    context: _Raw = _Raw()


class _OfContext(msgspec.Struct):
    groupId: _Raw = _Raw()
    traits: _Raw = _Raw()


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_identity = msgspec.json.Decoder(_Identity).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_object = msgspec.json.Decoder(dict[str, _Raw]).decode
_decode_of_context = msgspec.json.Decoder(_OfContext).decode


def messages_of(body: bytes, tenant_id: int, arrived_at: float) -> list[Message]:
    """The events of a request. Raises ValueError if it is invalid or contains anything but objects."""
    request = _decode_request(body)
    return [
        Message(tenant_id, _event_id(_decode_identity(event)), arrived_at, event, request.context)
        for event in request.batch
    ]


def _event_id(event: _Identity) -> str:
    """The event's id. An event without a messageId gets a new one each time it is sent."""
    message_id = _text(event.messageId)
    return str(event_id_of(message_id) if message_id else uuid.uuid4())


def row_of(message: Message) -> dict[str, Any]:
    """The columns of legacy.events that the event itself fills; JSON columns hold JSON text. Raises ValueError."""
    event = _decode_event(message.event)
    arrived_at = datetime.fromtimestamp(message.arrived_at, UTC)
    kind = _text(event.type) or "track"
    said_at = client_time(
        usable_text(bytes(event.timestamp)),
        usable_text(bytes(event.originalTimestamp)),
        has_been_received=usable_text(bytes(event.receivedAt)) is not None,
    )
    context = _context(event.context, message.context)
    return {
        "tenant_id": message.tenant_id,
        "event_id": message.event_id,
        "message_id": _text(event.messageId) or message.event_id,
        "type": kind,
        "name": _text(event.event if kind == "track" else event.name),
        "user_id": _text(event.userId),
        "anonymous_id": _text(event.anonymousId),
        "group_id": _group_id(kind, event, context),
        "previous_id": _text(event.previousId),
        "occurred_at": said_at or arrived_at,
        "arrived_at": arrived_at,
        "properties": _json(event.properties),
        "traits": _traits(kind, event, context),
        "context": context,
    }


def _text(raw: _Raw) -> str | None:
    return text_of(bytes(raw))


def _json(raw: _Raw) -> str | None:
    token = bytes(raw)
    return None if token in _NOTHING else token.decode()


def _context(own: _Raw, around: _Raw) -> str | None:
    """The request's context, overridden by the event's own."""
    mine = _json(own)
    if _json(around) is None:
        return mine
    return msgspec.json.encode({**_decode_object(around), **(_decode_object(own) if mine else {})}).decode()


def _traits(kind: str, event: _Event, context: str | None) -> str | None:
    """Traits, as the platform reads them: some SDKs send a user's traits only in the context of an identify."""
    own = _json(event.traits)
    if kind == "identify" and own in (None, "{}") and context and '"traits"' in context:
        found = bytes(_decode_of_context(context).traits)
        return found.decode() if found.startswith(b"{") else own
    return own


def _group_id(kind: str, event: _Event, context: str | None) -> str | None:
    if kind == "group":
        return _text(event.groupId)
    return usable_text(bytes(_decode_of_context(context).groupId)) if context and '"groupId"' in context else None
