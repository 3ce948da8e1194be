"""The traits of users and groups that a claim itself changes, as each of its events sees them.

An identify and a track of a new user often arrive in one request. The track sees the traits of the identify, as in a
claim of its own. The rules are those of the queries `keep_traits` (the newest client time wins, by name) and `known`
(the newest traits, up to a number and a size). So rows do not depend on how events are distributed over claims.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import psycopg

from pipeline_platform.event.types import EventType, QueuedEvent
from pipeline_platform.lookups import TRAITS_BYTES_MAX, TRAITS_MAX, LookupKey, Lookups
from pipeline_platform.worker.transform import Row, traits_of

# A PostgreSQL index entry holds 2,704 bytes. A trait's entry has its subject's id, its name and about 40 bytes more.
_INDEXED_BYTES_MAX = 2_600
_Pair = tuple[QueuedEvent, Row]


def changes(event: QueuedEvent, row: Row) -> LookupKey | None:
    """The user or group whose traits an event changes, or None."""
    if not row.traits or row.type not in (EventType.IDENTIFY, EventType.GROUP):
        return None
    is_group = row.type is EventType.GROUP
    subject = row.group_id if is_group else row.user_id
    return LookupKey("group" if is_group else "user", event.tenant_id, subject) if subject else None


def kept_traits(event: QueuedEvent, row: Row) -> list[tuple[LookupKey, str, bytes]]:
    """The traits that an event sets: user or group, name and JSON text.

    A trait whose name is too long to be indexed with its subject's id is left out. The event's own row has it.
    """
    key = changes(event, row)
    if key is None:
        return []
    name_bytes_max = _INDEXED_BYTES_MAX - len(key.subject_id.encode())
    return [(key, name, value) for name, value in traits_of(row).items() if len(name.encode()) <= name_bytes_max]


def as_of(event: QueuedEvent, row: Row) -> datetime:
    """The time that decides which trait is newest. A time in the future counts as received_at."""
    return min(row.occurred_at, event.received_at)


@dataclass(frozen=True, slots=True)
class Trait:
    """value: JSON as PostgreSQL writes it, or None if it is too large to be copied. size: bytes of name and value."""

    as_of: datetime
    event_id: uuid.UUID
    size: int
    value: str | None


@dataclass(slots=True)
class Subject:
    """The traits of one user or group, and their JSON object until the next change."""

    _traits: dict[str, Trait] = field(default_factory=dict[str, Trait])
    _text: bytes | None = None

    def learn(self, name: str, trait: Trait) -> None:
        """Add a trait, unless a newer one of its name is known."""
        old = self._traits.get(name)
        if old is None or (old.as_of, old.event_id) < (trait.as_of, trait.event_id):
            self._traits[name] = trait
            self._text = None

    def text(self) -> bytes:
        """The JSON object that is copied into a row. Empty if no trait is known."""
        if self._text is None:
            self._text = self._written()
        return self._text

    def _written(self) -> bytes:
        by_name = sorted(self._traits.items())
        newest = sorted(by_name, key=lambda item: (item[1].as_of, item[1].event_id), reverse=True)
        parts: list[bytes] = []
        size = 0
        for name, trait in newest[:TRAITS_MAX]:
            if trait.value is None:
                continue
            size += trait.size
            if size > TRAITS_BYTES_MAX:
                break
            parts.append(msgspec.json.encode(name) + b":" + trait.value.encode())
        return b"{" + b",".join(parts) + b"}" if parts else b""


class ChangingSubjects:
    """The users and groups whose traits one event of a sequence changes and a later one reads."""

    def __init__(
        self, conn: psycopg.Connection[Any], lookups: Lookups, pairs: Sequence[_Pair], keys: set[LookupKey]
    ) -> None:
        brought: list[tuple[int, str, bytes]] = [
            (place, name, value)
            for place, (event, row) in enumerate(pairs if keys else ())
            if changes(event, row) in keys
            for _, name, value in kept_traits(event, row)
        ]
        self._subjects = {key: Subject() for key in keys}
        self._brought: dict[int, list[tuple[str, int, str | None]]] = {place: [] for place, *_ in brought}
        found = lookups.read_apart(conn, list(keys), [(name, value) for _, name, value in brought]) if keys else ()
        for place_of, kind, tenant_id, subject_id, name, at, event_id, size, value in found:
            if place_of:
                self._brought[brought[place_of - 1][0]].append((name, size, value))
            else:
                self._subjects[LookupKey(kind, tenant_id, subject_id)].learn(name, Trait(at, event_id, size, value))

    def text(self, key: LookupKey) -> bytes:
        """The traits that are known now; see `Subject.text`."""
        return self._subjects[key].text()

    def happened(self, place: int, event: QueuedEvent, row: Row) -> None:
        """Add the traits of the event at `place`, so that later events see them."""
        key = changes(event, row)
        if key is not None:
            at = as_of(event, row)
            for name, size, value in self._brought.get(place, ()):
                self._subjects[key].learn(name, Trait(at, event.event_id, size, value))


def read_after_change(pairs: Sequence[_Pair], keys: Sequence[Iterable[LookupKey | None]]) -> set[LookupKey]:
    """The keys that an event reads and an earlier event changes."""
    changed: set[LookupKey] = set()
    found: set[LookupKey] = set()
    if not any(row.traits for _, row in pairs):
        return found
    for (event, row), wanted in zip(pairs, keys, strict=True):
        if changed:
            found.update(key for key in wanted if key is not None and key in changed)
        key = changes(event, row)
        if key is not None:
            changed.add(key)
    return found
