"""The tracking API: from a request's bytes to accepted and rejected events. Pure: no sockets, no database.

`open_request` parses the envelope and keeps the exact bytes of each event. `judge` accepts or rejects each event.
`keys_of_body` finds the write keys first and cheaply, because the sender is unknown until then.
Each event ends in exactly one of the two lists, unless the request is refused as a whole.
"""

import base64
import binascii
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec

from pipeline_platform.errors import InvalidEventError, RequestRefusedError
from pipeline_platform.event.json_limits import Doubts, check_text, check_values, doubts_of
from pipeline_platform.event.reader import Limits, read_event, rejected_event, text_of
from pipeline_platform.event.types import (
    MESSAGE_ID_NAMESPACE,
    AcceptedEvent,
    EventType,
    RejectedEvent,
    TenantId,
)
from pipeline_platform.gateway.invalid_json import elements, members

BATCH_CALLS = frozenset({"batch", "import", "b"})
SINGLE_CALLS = {kind.value: kind for kind in EventType} | {kind.code: kind for kind in EventType}

_SPACE = b" \t\r\n"
_QUERY_FIELDS_MAX = 100
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NOTHING = (b"", b"null")
_EXCERPT_CHARS = 200
# The envelope becomes part of the row of each event. This limits all copies together. A request of 2,500 events may
# have an envelope of 6.7 kB; SDKs have 2 kB at most.
_COPIES_BYTES_MAX = 16 << 20
_SENT_AT_BYTES_MAX = 100
# With more commas, a batch is split with a limit of events. A parser would make an object of each element.
_COMMAS_MAX = 300_000
_KEYS_MAX = 8
# A line that is not empty, from its first character. The pattern skips 5 MiB of empty lines in 30 ms; a loop over
# `bytes.find` needs a second.
_LINE = re.compile(rb"[^ \t\r\n][^\n]*")
_KEY = re.compile(rb'"writeKey"\s*:\s*("[^"\\]{1,1000}"|\d{1,1000})')


class _Batch(msgspec.Struct, rename="camel", gc=False):
    batch: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET
    context: msgspec.Raw = msgspec.Raw()
    integrations: msgspec.Raw = msgspec.Raw()
    sent_at: msgspec.Raw = msgspec.Raw()
    write_key: msgspec.Raw = msgspec.Raw()


class _Single(msgspec.Struct, rename="camel", gc=False):
    write_key: msgspec.Raw = msgspec.Raw()


_decode_batch = msgspec.json.Decoder(_Batch).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_single = msgspec.json.Decoder(_Single).decode
_decode_key = msgspec.json.Decoder(str).decode
_decode_any = msgspec.json.Decoder(msgspec.Raw).decode


class _Around(NamedTuple):
    """The parts of the envelope, as bytes of the request."""

    context: bytes
    integrations: bytes
    sent_at: bytes


_NO_ENVELOPE = _Around(b"", b"", b"")


@dataclass(frozen=True, slots=True)
class OpenedRequest:
    """A request that can be read. envelope_error: why none of its events can be accepted."""

    write_key: str | None
    events: Sequence[bytes]
    doubts: Doubts
    kind: EventType | None
    envelope: bytes = b""
    envelope_error: InvalidEventError | None = None


@dataclass(slots=True)
class Judged:
    """The events of a request, and the position of each in it."""

    accepted: list[AcceptedEvent] = field(default_factory=list[AcceptedEvent])
    accepted_at: list[int] = field(default_factory=list[int])
    rejected: list[RejectedEvent] = field(default_factory=list[RejectedEvent])
    rejected_at: list[int] = field(default_factory=list[int])


def key_of_header(authorization: bytes | None) -> str | None:
    """The user name of HTTP Basic. None without HTTP Basic: then the write key of the body counts."""
    scheme, _, credentials = (authorization or b"").partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user = base64.b64decode(credentials.strip() + b"==").partition(b":")[0]
    except (binascii.Error, ValueError):
        return None
    return user.decode("utf-8", "replace") or None


def key_of_query(query: bytes) -> str | None:
    """`writeKey` of the query. Beacons cannot send headers."""
    if not query:
        return None
    try:
        return dict(parse_qsl(query.decode("latin-1"), max_num_fields=_QUERY_FIELDS_MAX)).get("writeKey")
    except ValueError:
        return None


def keys_of_body(body: bytes) -> list[str]:
    """The write keys that a body may have; only some of them if it is invalid JSON. Reads the body once.

    `open_request` or `open_invalid_request` decides which of them counts. Raises RequestRefusedError (400).
    """
    try:
        key = _write_key(bytes(_decode_single(body.removeprefix(_BYTE_ORDER_MARK)).write_key))
        return [key] if key else []
    except msgspec.ValidationError:
        return []
    except (msgspec.DecodeError, RecursionError):
        tokens = dict.fromkeys(match[1] for match in _KEY.finditer(body))
        return [key for token in [*tokens][:_KEYS_MAX] if (key := _decode_text_or_nothing(token) or token.decode())]


def open_request(kind: EventType | None, body: bytes, limits: Limits, events_max: int) -> OpenedRequest | None:
    """The envelope and its events. Returns None if only `open_invalid_request` may be able to read the body.

    kind None: a batch. Raises RequestRefusedError: 400 if it is no request, 413 if it has too many events.
    """
    body = body.removeprefix(_BYTE_ORDER_MARK)
    if kind is None and body.lstrip(_SPACE).startswith(b"["):
        return _open_array(body, limits, events_max)
    try:
        if kind is not None:
            token = bytes(_decode_single(body).write_key)
            return OpenedRequest(_write_key(token), [body], doubts_of(body), kind)
        if _is_dense(body):
            return None
        batch = _decode_batch(body)
    except msgspec.ValidationError as error:
        raise _refused("invalid_envelope", "expected an object, and in it batch as an array") from error
    except (msgspec.DecodeError, RecursionError):
        return None
    if batch.batch is msgspec.UNSET:
        raise _refused("missing_batch", "the body has no batch")
    events = [bytes(event) for event in batch.batch]
    around = _Around(bytes(batch.context), bytes(batch.integrations), bytes(batch.sent_at))
    if _has_second_batch(body, [around.context, around.integrations, *events]):
        raise _refused("two_batches", "the body has more than one batch")
    return _batch_request(body, events, around, bytes(batch.write_key), limits, events_max)


def open_invalid_request(kind: EventType | None, body: bytes, limits: Limits, events_max: int) -> OpenedRequest:
    """`open_request` for a body that is invalid JSON. Its valid events are still accepted."""
    body = body.removeprefix(_BYTE_ORDER_MARK)
    if kind is None and body.lstrip(_SPACE).startswith(b"["):
        return _batch_request(body, elements(body, events_max), _NO_ENVELOPE, b"", limits, events_max)
    found: dict[str, bytes] = {}
    for key, value in members(body):
        try:
            name = _decode_key(key)
        except ValueError as error:
            raise _refused("invalid_json", f"the body has a key that cannot be read: {error}") from error
        if name == "batch" and name in found:
            raise _refused("two_batches", "the body has more than one batch")
        found[name] = value
    write_key = found.get("writeKey", b"")
    if kind is not None:
        return OpenedRequest(_write_key(write_key), [body], doubts_of(body), kind)
    if "batch" not in found:
        raise _refused("missing_batch", "the body has no batch")
    events = elements(found["batch"], events_max)
    around = _Around(*(found.get(name, b"") for name in ("context", "integrations", "sentAt")))
    return _batch_request(body, events, around, write_key, limits, events_max)


def open_ndjson(body: bytes, limits: Limits, events_max: int) -> OpenedRequest:
    """A batch with one event per line (NDJSON), without an envelope. Empty lines are skipped.

    Stops after more than `events_max` events.
    """
    body = body.removeprefix(_BYTE_ORDER_MARK)
    events = [line[0].rstrip(_SPACE) for line in islice(_LINE.finditer(body), events_max + 1)]
    return _batch_request(body, events, _NO_ENVELOPE, b"", limits, events_max)


def judge(request: OpenedRequest, tenant_id: TenantId, limits: Limits, idempotency_key: str | None) -> Judged:
    """Accept or reject each event."""
    judged = Judged()
    for position, payload in enumerate(request.events):
        try:
            if request.envelope_error is not None:
                raise request.envelope_error
            make_id = partial(_made_id, tenant_id, idempotency_key, position)
            event = read_event(
                payload,
                tenant_id,
                limits,
                request.doubts,
                make_id,
                kind=request.kind,
                envelope=request.envelope,
            )
            judged.accepted.append(event)
            judged.accepted_at.append(position)
        except InvalidEventError as error:
            judged.rejected.append(rejected_event(payload, tenant_id, limits, error))
            judged.rejected_at.append(position)
    return judged


def _open_array(body: bytes, limits: Limits, events_max: int) -> OpenedRequest | None:
    """A batch that is an array of events, without an envelope."""
    if _is_dense(body):
        return None
    try:
        events = [bytes(event) for event in _decode_array(body)]
    except (msgspec.DecodeError, RecursionError):
        return None
    return _batch_request(body, events, _NO_ENVELOPE, b"", limits, events_max)


def _is_dense(body: bytes) -> bool:
    return len(body) > 2 * _COMMAS_MAX and body.count(b",") > _COMMAS_MAX


def _batch_request(
    body: bytes,
    events: list[bytes],
    around: _Around,
    write_key: bytes,
    limits: Limits,
    events_max: int,
) -> OpenedRequest:
    if len(events) > events_max:
        raise RequestRefusedError(413, "too_many_events", f"more than {events_max} events in one request")
    key, doubts = _write_key(write_key), doubts_of(body)
    try:
        envelope = _envelope(around, len(events), doubts, limits)
    except InvalidEventError as error:
        return OpenedRequest(key, events, doubts, None, envelope_error=error)
    return OpenedRequest(key, events, doubts, None, envelope)


def _envelope(around: _Around, events: int, doubts: Doubts, limits: Limits) -> bytes:
    """The stored part of the envelope. A sentAt that is no string, or a long one, is left out: it is no time."""
    parts: list[bytes] = []
    for name, value in (("context", around.context), ("integrations", around.integrations)):
        if value not in _NOTHING:
            _check_part(name, value, events, doubts, limits)
            parts.append(b'"%s":%s' % (name.encode(), value))
    if _is_short_text(around.sent_at, doubts):
        parts.append(b'"sentAt":' + around.sent_at)
    return b"{" + b",".join(parts) + b"}" if parts else b""


def _check_part(name: str, value: bytes, events: int, doubts: Doubts, limits: Limits) -> None:
    try:
        if len(value) * events > _COPIES_BYTES_MAX:
            message = f"{len(value)} bytes for each of {events} events: send fewer events in a request"
            raise InvalidEventError("event_too_large", message)
        _check_value(value, doubts, limits, _decode_single if name == "context" else _decode_any)
    except InvalidEventError as error:
        excerpt = value[:_EXCERPT_CHARS].decode("utf-8", "replace").replace("\0", "")
        raise InvalidEventError(error.code, f"the request's {name}: {error}; it begins {excerpt}") from error


def _check_value(value: bytes, doubts: Doubts, limits: Limits, decode: Callable[[bytes], object]) -> None:
    if len(value) > limits.event_bytes_max:
        message = f"{len(value)} bytes, an event may have {limits.event_bytes_max}"
        raise InvalidEventError("event_too_large", message)
    check_text(value, doubts)
    try:
        decode(value)
    except msgspec.ValidationError as error:
        raise InvalidEventError("invalid_field", "must be an object") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidEventError("invalid_json", str(error)) from error
    # The value becomes part of the event, one level deeper.
    check_values(value, doubts, limits.nesting_max - 1)


def _is_short_text(token: bytes, doubts: Doubts) -> bool:
    if not token.startswith(b'"') or len(token) > _SENT_AT_BYTES_MAX:
        return False
    try:
        check_text(token, doubts)
        _decode_key(token)
    except (InvalidEventError, ValueError):
        return False
    return True


def _decode_text_or_nothing(token: bytes) -> str:
    try:
        return _decode_key(token)
    except ValueError:
        return ""


def _write_key(token: bytes) -> str | None:
    try:
        return text_of(token) or None
    except ValueError as error:
        raise _refused("invalid_write_key", "writeKey must be a string") from error


def _has_second_batch(body: bytes, inside: list[bytes]) -> bool:
    """Whether the body has two batches. The first would be lost: a JSON parser keeps the last of equal keys."""
    if body.count(b'"batch"') <= 1:
        return False
    return body.count(b'"batch"') - sum(part.count(b'"batch"') for part in inside) > 1


def _made_id(tenant_id: TenantId, idempotency_key: str | None, position: int) -> uuid.UUID:
    """The id of an event without messageId: equal in every resend if the client sends a key, else random."""
    if not idempotency_key:
        return uuid.uuid4()
    return uuid.uuid5(MESSAGE_ID_NAMESPACE, f"{tenant_id}\n{idempotency_key}\n{position}")


def _refused(code: str, message: str) -> RequestRefusedError:
    return RequestRefusedError(400, code, message)
