"""Finds whose event it is: the ids of one person, from the events that link them.

A write key is public, so a link is only a claim. An anonymous id therefore belongs to a person if every event that
links it to any user links it to this person. An id that others use too is left alone and counted as shared. An id that
is also a user id is not followed: it is listed with its link, and erased only if the operator names it too.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pipeline_platform.event.person_ids import Ids, read_ids

Links = Callable[[list[str]], Iterable[Ids]]


@dataclass(frozen=True, slots=True)
class Person:
    """One person of one tenant.

    user_id: the id that was named. users: that id and the others that the operator named. anonymous: ids that are no
    user ids and belong to this person alone. shared: ids seen with this person that others use too. linked: other users
    that an event links to this person, and how; they are not erased. links: how those in `anonymous` were found.
    """

    tenant_id: int
    user_id: str
    users: frozenset[str]
    anonymous: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    linked: dict[str, str] = field(default_factory=dict[str, str])
    links: dict[str, str] = field(default_factory=dict[str, str])

    def has(self, ids: Ids) -> bool:
        """Whether an event is this person's; the same as control.is_theirs."""
        return (
            ids.user_id in self.users
            or ids.previous_id in self.users
            or ids.previous_id in self.anonymous
            or (ids.user_id is None and ids.anonymous_id in self.anonymous)
        )

    def params(self) -> dict[str, Any]:
        """Parameters of the queries that choose this person's rows."""
        return {"tenant_id": self.tenant_id, "users": sorted(self.users), "anonymous": sorted(self.anonymous)}


def ids_of(payload: bytes, users: Collection[str]) -> Ids:
    """The ids in an event's bytes. If these are no event: the first of `users` that they contain as a JSON text."""
    try:
        return read_ids(payload)
    except ValueError:
        for user in users:
            if json.dumps(user).encode() in payload or msgspec.json.encode(user) in payload:
                return Ids(user_id=user)
        return Ids()


def find_person(
    tenant_id: int, user_id: str, links: Links, also: Collection[str] = (), buried: Collection[str] = ()
) -> Person:
    """Follow the links from the named users.

    links: the ids of all events and traits that contain one of the given ids in any field. also: other users that the
    operator named. buried: anonymous ids that an interrupted run of this erasure found.
    """
    users = {user_id, *also}
    found = set(links(sorted(users)))
    how = dict.fromkeys(buried, "an interrupted run of this erasure")
    for ids in found:
        if ids.user_id in users:
            _note_links(ids, how)
    found |= set(links(sorted(set(how) - users))) if set(how) - users else set()
    owners: dict[str, set[str]] = defaultdict(set)
    later: dict[str, str] = {}
    for ids in found:
        for other in ids[1:]:
            if ids.user_id is not None and other is not None and other != ids.user_id:
                owners[other].add(ids.user_id)
        if ids.previous_id in users and ids.user_id is not None and ids.user_id not in users:
            later[ids.user_id] = f"alias: {ids.previous_id} became {ids.user_id}"
    known_users = {ids.user_id for ids in found} - {None}
    anonymous = {name for name in how if owners[name] <= users and (name in users or name not in known_users)}
    earlier = {name: link for name, link in how.items() if name in known_users and name not in users}
    return Person(
        tenant_id,
        user_id,
        frozenset(users),
        frozenset(anonymous),
        frozenset(set(how) - anonymous - users - set(earlier)),
        later | earlier,
        {name: how[name] for name in anonymous},
    )


def _note_links(ids: Ids, how: dict[str, str]) -> None:
    """Note which ids one of the person's events contains."""
    if ids.anonymous_id is not None:
        how.setdefault(ids.anonymous_id, f"anonymousId of {ids.user_id}")
    if ids.previous_id is not None:
        how[ids.previous_id] = f"alias: {ids.previous_id} became {ids.user_id}"
