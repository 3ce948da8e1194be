"""The types of an event between the gateway and the tables, and how it is identified."""

import re
import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType

TenantId = NewType("TenantId", int)
BatchId = NewType("BatchId", int)
WorkId = NewType("WorkId", int)

# The namespace of the UUIDv5 of a messageId that is no UUID. Never change it: it is part of every stored identity.
MESSAGE_ID_NAMESPACE = uuid.UUID("6f1f7c0e-7a55-5b0c-9d3e-2f5f0d1d9a41")


class Lane(StrEnum):
    """Where work waits; each lane has a share of the workers."""

    LIVE = "live"
    OVERFLOW = "overflow"
    RETRY = "retry"
    REPLAY = "replay"


class EventType(StrEnum):
    """The calls of the tracking API; the queue stores their `code`."""

    TRACK = "track"
    IDENTIFY = "identify"
    PAGE = "page"
    SCREEN = "screen"
    GROUP = "group"
    ALIAS = "alias"

    @property
    def code(self) -> str:
        return self.value[0]

    @classmethod
    def of_code(cls, code: str) -> "EventType":
        """The type of a stored letter. Raises KeyError for any other."""
        return _TYPE_OF_CODE[code]


_TYPE_OF_CODE = {kind.value[0]: kind for kind in EventType}


# The only form that is read as a UUID, here and in legacy.event_id_of. Python's and PostgreSQL's own readers accept
# other forms too (braces, urn:, no hyphens), and they differ from each other.
_is_uuid = re.compile("[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}").fullmatch


def event_id_of(message_id: str) -> uuid.UUID:
    """The event_id of a messageId within its tenant: itself if it is a UUID (8-4-4-4-12 digits), else its UUIDv5."""
    if len(message_id) == 36 and _is_uuid(message_id):
        return uuid.UUID(message_id)
    return uuid.uuid5(MESSAGE_ID_NAMESPACE, message_id)


@dataclass(frozen=True, slots=True)
class AcceptedEvent:
    """A valid event, as the gateway and the import pass it to the queue.

    payload: its original bytes, a JSON object in UTF-8. client_at: its own time (UTC) or None. envelope: the envelope
    of its request (a JSON object with context and sentAt) or empty. received_at: only for an import; else the
    database's clock decides.
    """

    tenant_id: TenantId
    event_id: uuid.UUID
    type: EventType
    client_at: datetime | None
    payload: bytes
    envelope: bytes = b""
    received_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RejectedEvent:
    """An event that can never be accepted, as it goes to quarantine."""

    tenant_id: TenantId
    message_id: str | None
    code: str
    message: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class QueuedEvent:
    """One event of a claimed batch, as the worker reads it."""

    tenant_id: TenantId
    event_id: uuid.UUID
    type: EventType
    client_at: datetime | None
    received_at: datetime
    payload: bytes
    envelope: bytes
    lane: Lane
    batch_id: BatchId
    event_index: int
    batch_received_at: datetime
    epoch: int
    # True if the old pipeline is production for it. Its row then goes to shadow.events.
    is_shadow: bool
    # True for an import. It was accepted long after its received_at, so its latency is not measured.
    is_imported: bool = False
