"""Whose event it is: the ids that one person is known by, found from the events that link them.

An id of a device or an earlier name belongs to a person where every event that links it to anybody links it to this
person. What others use as well is left alone and counted as shared.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from pipeline_platform.event_ids import Ids, read_ids

Links = Callable[[list[str]], Iterable[Ids]]


@dataclass(frozen=True, slots=True)
class Person:
    """One person of one tenant.

    users, anonymous: all ids that are this person's alone. shared: ids seen with this person that others use too.
    now_known_as: users that one of these ids was merged into by an alias event: not erased, to be named as well.
    """

    tenant_id: int
    user_id: str
    users: frozenset[str]
    anonymous: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    now_known_as: frozenset[str] = frozenset()

    @classmethod
    def named(cls, tenant_id: int, user_id: str) -> "Person":
        """A person of whom nothing but the id is known."""
        return cls(tenant_id, user_id, frozenset({user_id}))

    def has(self, ids: Ids) -> bool:
        """Whether an event is this person's; the same as control.is_theirs."""
        return (
            ids.user_id in self.users
            or ids.previous_id in self.users
            or ids.previous_id in self.anonymous
            or (ids.user_id is None and ids.anonymous_id in self.anonymous)
        )

    def params(self) -> dict[str, Any]:
        """Of the queries that choose this person's rows."""
        return {"tenant_id": self.tenant_id, "users": sorted(self.users), "anonymous": sorted(self.anonymous)}


def ids_of(payload: bytes, named: str) -> Ids:
    """The ids in an event's bytes. Of bytes that are no event: `named` where they hold that id as a JSON text."""
    try:
        return read_ids(payload)
    except ValueError:
        texts = (json.dumps(named).encode(), msgspec.json.encode(named))
        return Ids(user_id=named) if any(text in payload for text in texts) else Ids()


def find_person(tenant_id: int, user_id: str, links: Links) -> Person:
    """Follow the links from a user id. links: the ids of all events that name one of the given ids in any place."""
    users = {user_id}
    found, asked = set[Ids](), set[str]()
    # The users whose events name an id in another place, and of those the ones that it was merged into.
    owners: dict[str, set[str]] = defaultdict(set)
    merged_into: dict[str, set[str]] = defaultdict(set)
    while True:
        seen = {other for ids in found if ids.user_id in users for other in ids[1:] if other is not None}
        if wanted := (seen | users) - asked:
            asked |= wanted
            for ids in set(links(sorted(wanted))) - found:
                found.add(ids)
                _note(ids, owners, merged_into)
        elif more := {name for name in seen if name in merged_into and merged_into[name] <= users} - users:
            users |= more
        else:
            break
    anonymous = {name for name in seen if owners[name] <= users}
    later = {name for old in users for name in merged_into[old]} - users
    return Person(
        tenant_id,
        user_id,
        frozenset(users),
        frozenset(anonymous),
        frozenset(seen - anonymous - users),
        frozenset(later),
    )


def _note(ids: Ids, owners: dict[str, set[str]], merged_into: dict[str, set[str]]) -> None:
    if ids.user_id is None:
        return
    for other in (ids.anonymous_id, ids.previous_id):
        if other is not None and other != ids.user_id:
            owners[other].add(ids.user_id)
    if ids.previous_id is not None and ids.previous_id != ids.user_id:
        merged_into[ids.previous_id].add(ids.user_id)
