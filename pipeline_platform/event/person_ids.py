"""The ids in an event's bytes: the event's own id and the ids of its person."""

from typing import NamedTuple

import msgspec

from pipeline_platform.event.reader import text_of


class Ids(NamedTuple):
    """The ids as in the columns of analytics.events, with numbers as text."""

    user_id: str | None = None
    anonymous_id: str | None = None
    previous_id: str | None = None


class _Body(msgspec.Struct, rename="camel"):
    user_id: msgspec.Raw = msgspec.Raw()
    anonymous_id: msgspec.Raw = msgspec.Raw()
    previous_id: msgspec.Raw = msgspec.Raw()


class _Named(msgspec.Struct, rename="camel"):
    message_id: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Body).decode
_decode_named = msgspec.json.Decoder(_Named).decode


def read_ids(payload: bytes) -> Ids:
    """The ids of one event. A blank id counts as none. Raises ValueError if the bytes are no event."""
    try:
        body = _decode(payload)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return Ids(*(known_id(text_of(bytes(token))) for token in (body.user_id, body.anonymous_id, body.previous_id)))


def message_id_of(payload: bytes) -> str | None:
    """The messageId of bytes that may not be an event. None if it cannot be read, or stored as text."""
    try:
        message_id = text_of(bytes(_decode_named(payload).message_id))
    except (ValueError, RecursionError):
        return None
    return None if message_id and "\0" in message_id else message_id


def known_id(text: str | None) -> str | None:
    """The id, or None if it is blank. The same as control.known_id."""
    return text if text and text.strip(" \t\r\n") else None
