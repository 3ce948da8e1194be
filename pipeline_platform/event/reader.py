"""Reads one event of the tracking API: from its bytes to an AcceptedEvent, or to the reason why there is none.

Pure. Only this module decides what a valid event is, for the gateway and the import. It is as lenient as SDKs are (a
number counts as its text for an id or a name; times may be anything). It is strict where a guess would silently alter
an event.

Codes: event_too_large, invalid_utf8, invalid_json, not_an_object, nesting_too_deep, nul_character,
lone_surrogate, number_out_of_range, missing_field, invalid_field, unknown_type, too_long.
"""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import msgspec

from pipeline_platform.errors import InvalidEventError
from pipeline_platform.event.client_time import parse_time
from pipeline_platform.event.json_limits import Doubts, check_text, check_values, too_deep
from pipeline_platform.event.types import (
    AcceptedEvent,
    EventType,
    RejectedEvent,
    TenantId,
    event_id_of,
)
from pipeline_platform.settings import Settings

_TYPES = {kind.value: kind for kind in EventType}
_NOTHING = (b"", b"null")
_MESSAGE_ID = re.compile(rb'"messageId"\s*:\s*("[^"\\]{1,2000}")')


class _Object(msgspec.Struct, gc=False):
    """Any JSON object. It is checked but not built."""


class _Event(msgspec.Struct, rename="camel", gc=False):
    """An event as most SDKs send it. It is decoded in about a microsecond."""

    type: str | None = None
    message_id: str | None = None
    user_id: str | None = None
    anonymous_id: str | None = None
    group_id: str | None = None
    previous_id: str | None = None
    event: str | None = None
    name: str | None = None
    original_timestamp: str | None = None
    timestamp: str | None = None
    received_at: str | None = None
    properties: _Object | None = None
    traits: _Object | None = None
    context: _Object | None = None


class _Tokens(msgspec.Struct, rename="camel"):
    """The same fields with any values."""

    type: msgspec.Raw = msgspec.Raw()
    message_id: msgspec.Raw = msgspec.Raw()
    user_id: msgspec.Raw = msgspec.Raw()
    anonymous_id: msgspec.Raw = msgspec.Raw()
    group_id: msgspec.Raw = msgspec.Raw()
    previous_id: msgspec.Raw = msgspec.Raw()
    event: msgspec.Raw = msgspec.Raw()
    name: msgspec.Raw = msgspec.Raw()
    original_timestamp: msgspec.Raw = msgspec.Raw()
    timestamp: msgspec.Raw = msgspec.Raw()
    received_at: msgspec.Raw = msgspec.Raw()
    properties: msgspec.Raw = msgspec.Raw()
    traits: msgspec.Raw = msgspec.Raw()
    context: msgspec.Raw = msgspec.Raw()


class _Traits(msgspec.Struct):
    traits: dict[str, msgspec.Raw] | None = None


_TEXTS = ("type", "message_id", "user_id", "anonymous_id", "group_id", "previous_id", "event", "name")
_TIMES = ("original_timestamp", "timestamp", "received_at")
_OBJECTS = ("properties", "traits", "context")
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_tokens = msgspec.json.Decoder(_Tokens).decode
_decode_traits = msgspec.json.Decoder(_Traits).decode
_decode_text = msgspec.json.Decoder(str).decode


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings that limit an event."""

    event_bytes_max: int
    nesting_max: int
    id_bytes_max: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.event_bytes_max, settings.nesting_max, settings.id_bytes_max)


def read_event(
    payload: bytes,
    tenant_id: TenantId,
    limits: Limits,
    doubts: Doubts,
    make_id: Callable[[], uuid.UUID],
    *,
    kind: EventType | None = None,
    envelope: bytes = b"",
    received_at: datetime | None = None,
) -> AcceptedEvent:
    """The event in `payload`. Raises InvalidEventError.

    doubts: of these bytes or of a body that contains them. make_id makes the event_id if there is no messageId.
    kind: the type in the path, or None to use the event's own `type`.
    """
    if len(payload) > limits.event_bytes_max:
        message = f"{len(payload)} bytes: an event may have {limits.event_bytes_max}"
        raise InvalidEventError("event_too_large", message)
    check_text(payload, doubts)
    event = _decode(payload, limits)
    check_values(payload, doubts, limits.nesting_max)
    kind = kind or _type_of(event)
    _require_fields(kind, event)
    _check_lengths(kind, event, payload, limits.id_bytes_max)
    return AcceptedEvent(
        tenant_id,
        event_id_of(event.message_id) if event.message_id else make_id(),
        kind,
        _client_time(event),
        payload,
        envelope,
        received_at,
    )


def rejected_event(payload: bytes, tenant_id: TenantId, limits: Limits, error: InvalidEventError) -> RejectedEvent:
    """The event as it goes to quarantine. Its messageId only helps to find it, and may be cut or missing."""
    message_id = _message_id_in(payload)
    if message_id is not None:
        message_id = message_id[: limits.id_bytes_max]
    return RejectedEvent(tenant_id, message_id, error.code, str(error), payload)


def text_of(token: bytes) -> str | None:
    """The text of a JSON string, or of a number as it is written. None for null. Raises ValueError."""
    if token in _NOTHING:
        return None
    if token.startswith(b'"'):
        return _decode_text(token)
    if token[0] in b"-0123456789":
        return token.decode("ascii")
    raise ValueError("neither a string nor a number")


def usable_text(token: bytes, bytes_max: int = 1 << 30) -> str | None:
    """`text_of` for values that an event may lack. None if it is no text, or longer than `bytes_max`."""
    try:
        text = text_of(token)
    except ValueError:
        return None
    return None if text is None or len(text.encode()) > bytes_max else text


def client_time(timestamp: str | None, original_timestamp: str | None, *, has_been_received: bool) -> datetime | None:
    """The client's time of the event. None if neither text is a time.

    `timestamp` is the time that the caller gave the SDK. `originalTimestamp` is the time of the call. rudder-sdk-node
    sends both, or only the second if the caller gave no time. has_been_received: the event has a receivedAt, so another
    server received it first. Such a server writes its own corrected time into `timestamp` and keeps the client's in
    `originalTimestamp`.
    """
    texts = (original_timestamp, timestamp) if has_been_received else (timestamp, original_timestamp)
    for text in texts:
        at = parse_time(text) if text else None
        if at is not None:
            return at
    return None


def _decode(payload: bytes, limits: Limits) -> _Event:
    try:
        return _decode_event(payload)
    except msgspec.ValidationError:
        return _decode_leniently(payload)
    except msgspec.DecodeError as error:
        raise InvalidEventError("invalid_json", str(error)) from error
    except RecursionError as error:
        raise too_deep(limits.nesting_max) from error


def _decode_leniently(payload: bytes) -> _Event:
    try:
        tokens = _decode_tokens(payload)
    except msgspec.ValidationError as error:
        raise InvalidEventError("not_an_object", "an event is a JSON object") from error
    except msgspec.DecodeError as error:
        raise InvalidEventError("invalid_json", str(error)) from error
    event = _Event()
    for field in _TEXTS:
        try:
            setattr(event, field, text_of(bytes(getattr(tokens, field))))
        except ValueError as error:
            raise _invalid(field, "a string or a number") from error
    for field in _OBJECTS:
        token = bytes(getattr(tokens, field))
        if token not in _NOTHING and not token.startswith(b"{"):
            raise _invalid(field, "an object")
    for field in _TIMES:
        token = bytes(getattr(tokens, field))
        setattr(event, field, _decode_text(token) if token.startswith(b'"') else None)
    return event


def _invalid(field: str, wanted: str) -> InvalidEventError:
    return InvalidEventError("invalid_field", f"{_camel(field)} must be {wanted}")


def _camel(field: str) -> str:
    first, *more = field.split("_")
    return first + "".join(word.title() for word in more)


def _type_of(event: _Event) -> EventType:
    if not event.type:
        raise InvalidEventError("missing_field", "type is missing")
    kind = _TYPES.get(event.type)
    if kind is None:
        raise InvalidEventError("unknown_type", f"unknown type {event.type[:40]!r}: one of {', '.join(_TYPES)}")
    return kind


def _require_fields(kind: EventType, event: _Event) -> None:
    if not event.user_id and not event.anonymous_id:
        raise InvalidEventError("missing_field", "userId or anonymousId is missing")
    if kind is EventType.TRACK and not event.event:
        raise InvalidEventError("missing_field", "event, the name of what happened, is missing")
    if kind is EventType.GROUP and not event.group_id:
        raise InvalidEventError("missing_field", "groupId is missing")
    if kind is EventType.ALIAS and not (event.previous_id and event.user_id):
        raise InvalidEventError("missing_field", "alias needs previousId and userId")


def _check_lengths(kind: EventType, event: _Event, payload: bytes, bytes_max: int) -> None:
    """Limits bytes, not characters: ids and names of traits go into index entries, which PostgreSQL limits."""
    if len(payload) <= bytes_max:
        return
    for field in _TEXTS:
        text: str | None = getattr(event, field)
        if text and len(text) > bytes_max // 4 and len(text.encode()) > bytes_max:
            raise _too_long(_camel(field), bytes_max)
    if event.traits is not None and kind in (EventType.IDENTIFY, EventType.GROUP):
        for name in _decode_traits(payload).traits or ():
            if len(name.encode()) > bytes_max:
                raise _too_long("the name of a trait", bytes_max)


def _too_long(what: str, bytes_max: int) -> InvalidEventError:
    return InvalidEventError("too_long", f"{what} has more than {bytes_max} bytes")


def _client_time(event: _Event) -> datetime | None:
    """The client's own time, unchanged, so that it is the same in every resend. None if it cannot be used."""
    if event.received_at is None and event.timestamp:
        # Most SDKs send this.
        at = parse_time(event.timestamp)
        if at is not None:
            return at
    return client_time(event.timestamp, event.original_timestamp, has_been_received=event.received_at is not None)


def _message_id_in(payload: bytes) -> str | None:
    try:
        message_id = text_of(bytes(_decode_tokens(payload).message_id))
    except (ValueError, RecursionError):
        # In invalid JSON the first "messageId" is the best guess. DecodeErrors are ValueErrors.
        found = _MESSAGE_ID.search(payload)
        message_id = found[1][1:-1].decode("utf-8", "replace") if found else None
    return None if message_id is None or "\0" in message_id else message_id
