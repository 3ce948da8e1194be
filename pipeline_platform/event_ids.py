"""Who an event says that it is of: the ids in its bytes."""

from typing import NamedTuple

import msgspec

from pipeline_platform.event_reader import text_of


class Ids(NamedTuple):
    """As the columns of analytics.events have them; numbers as text."""

    user_id: str | None = None
    anonymous_id: str | None = None
    previous_id: str | None = None


class _Body(msgspec.Struct, rename="camel"):
    user_id: msgspec.Raw = msgspec.Raw()
    anonymous_id: msgspec.Raw = msgspec.Raw()
    previous_id: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Body).decode


def read_ids(payload: bytes) -> Ids:
    """The ids of one event; a blank id is none. ValueError where the bytes are no event."""
    try:
        body = _decode(payload)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return Ids(*(known_id(text_of(bytes(token))) for token in (body.user_id, body.anonymous_id, body.previous_id)))


def known_id(text: str | None) -> str | None:
    """The id, or None where it is blank and names nobody; the same as control.known_id."""
    return text if text and text.strip(" \t\r\n") else None
