"""Erases one person of one tenant: plan, tombstones, wait, erase, and look again until nothing is left.

The order makes it exact under load. The tombstones come first: from then on, everything that brings old events in
leaves out this person's. Then it waits for older transactions to end, since they may not have seen the tombstones. Then
it erases batch by batch, each in one transaction, with its work locked. Events that the person sends after `erased_at`
are accepted as usual.

If it is killed at any point, the account is exact, and the same command continues and finishes the erasure.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast
from uuid import UUID

import psycopg
import redis

from pipeline_platform.archive.hold import exclusively
from pipeline_platform.audit_log import actor, note
from pipeline_platform.db import connect, queries
from pipeline_platform.erasure.archives import erase_archives
from pipeline_platform.erasure.batches import erase_batch
from pipeline_platform.erasure.outcomes import Occurrence, discard
from pipeline_platform.erasure.person import Person
from pipeline_platform.erasure.scan import Place, look_for
from pipeline_platform.errors import ConfigError, PipelineError
from pipeline_platform.kill_points import reach
from pipeline_platform.lookups import Key
from pipeline_platform.settings import Settings
from pipeline_platform.tenants.tenants import tenant_id_of

_SQL = queries("erasure")
# The longest writing statements of this platform end within a minute; an audit or a report may read for longer.
_OLDER_S_MAX = 600.0
_PAUSE_S = 0.05
_LOOKS_MAX = 10
_REDIS_S = 5.0
_ROWS_AT_ONCE = 1_000

Conn = psycopg.Connection[Any]


@dataclass(slots=True)
class Erasure:
    """What was found and what was done.

    found: number of events by place and by the id that matched ("queue": {"by_user_id": 3, "by_other_ids": 1}). by_id:
    the same by id and place, with linked users. changed: rows by table. outcomes: the previous outcomes of the accepted
    events. not_ours: what this command cannot reach.
    """

    tenant: str
    subject_hash: str
    person: Person
    found: dict[str, dict[str, int]]
    by_id: dict[str, Counter[str]]
    erasure_id: int | None = None
    erased_at: datetime | None = None
    changed: Counter[str] = field(default_factory=Counter[str])
    outcomes: dict[str, int] = field(default_factory=dict[str, int])
    not_ours: list[str] = field(default_factory=list[str])

    def to_json(self) -> dict[str, Any]:
        return {
            "erasure_id": self.erasure_id,
            "tenant": self.tenant,
            "subject_hash": self.subject_hash,
            "erased_at": self.erased_at,
            "ids": {
                "users": len(self.person.users),
                "anonymous": len(self.person.anonymous - self.person.users),
                "shared": len(self.person.shared),
            },
            "by_id": self.every_id(),
            "found": self.found,
            "changed": dict(self.changed),
            "outcomes": self.outcomes,
            "not_ours": self.not_ours,
        }

    def every_id(self) -> list[dict[str, Any]]:
        """Each id with the link that leads to it, whether it is erased, and its events by place; erased ones first."""
        person = self.person
        named = {person.user_id: "named by you"} | dict.fromkeys(person.users - {person.user_id}, "named with --also")
        erased = named | {name: link for name, link in person.links.items() if name not in named}
        rows = [(name, link, True) for name, link in erased.items()]
        rows += [(name, link, False) for name, link in person.linked.items()]
        return [
            {"id": name, "link": link, "is_erased": is_erased, "events": dict(self.by_id.get(name, {}))}
            for name, link, is_erased in rows
        ]

    def counts(self) -> dict[str, Any]:
        """The part of the result that is stored: numbers, no names."""
        kept = ("ids", "found", "changed", "outcomes")
        return {name: value for name, value in self.to_json().items() if name in kept}


def plan(settings: Settings, tenant: str, user_id: str, also: Collection[str] = ()) -> Erasure:
    """What an erasure would find now; changes nothing. NoSuchThingError if there is no such tenant."""
    with connect(settings.database_url, "erase plan", statement_timeout_s=0) as conn:
        return _plan(conn, tenant, tenant_id_of(conn, tenant), user_id, also)


def erase(
    settings: Settings,
    tenant: str,
    user_id: str,
    reason: str,
    progress: Callable[[str], None] = lambda _: None,
    *,
    also: Collection[str] = (),
) -> Erasure:
    """Erase a person. progress: called with the next step. also: other user ids of the same person.

    ConfigError if the reason, which is kept, names the person; PipelineError if a transaction or a writer does not end.
    """
    if any(name in reason for name in (user_id, *also)):
        raise ConfigError("the reason is kept, so it must not name the person: refer to the request instead")
    with connect(settings.database_url, "erase", statement_timeout_s=0, lock_timeout_s=60) as conn, exclusively(conn):
        tenant_id = tenant_id_of(conn, tenant)
        progress("looking for the person's events")
        erasure = _plan(conn, tenant, tenant_id, user_id, also)
        _Eraser(settings, conn, erasure, progress).run(reason, also)
        return erasure


def _plan(
    conn: Conn, tenant: str, tenant_id: int, user_id: str, also: Collection[str], before: datetime | None = None
) -> Erasure:
    person = look_for(conn, tenant_id, user_id, before, also)
    params = person.params() | {"user_id": user_id, "before": before, "linked": sorted(person.linked)}
    found: dict[str, dict[str, int]] = {}
    by_id: dict[str, Counter[str]] = {}
    for source, is_theirs, name, is_named, events in conn.execute(_SQL["planned"], params):
        by_id.setdefault(name, Counter())[source] += events
        if is_theirs:
            by = found.setdefault(source, {"by_user_id": 0, "by_other_ids": 0})
            by["by_user_id" if is_named else "by_other_ids"] += events
    (subject,) = _row(conn, "subject_hash", params)
    return Erasure(tenant, subject, person, found, by_id)


class _Eraser:
    """One run on one connection, which holds the erasure's lock."""

    def __init__(self, settings: Settings, conn: Conn, erasure: Erasure, progress: Callable[[str], None]) -> None:
        self._settings = settings
        self._conn = conn
        self._erasure = erasure
        self._progress = progress

    @property
    def _person(self) -> Person:
        return self._erasure.person

    @property
    def _params(self) -> dict[str, Any]:
        return self._person.params() | {"before": self._erasure.erased_at, "erasure_id": self._erasure.erasure_id}

    def run(self, reason: str, also: Collection[str]) -> None:
        erasure = self._erasure
        named = self._person.params() | {"user_id": self._person.user_id, "reason": reason, "actor": actor()}
        erasure.erasure_id, erasure.erased_at = _row(self._conn, "begin", named)
        # A transaction that brings old events in may have committed an id without a tombstone: repeat until no id is
        # new.
        buried: frozenset[str] | None = None
        while buried is None or not self._person.anonymous <= buried:
            buried = self._person.anonymous
            self._conn.execute(_SQL["bury_ids"], self._params)
            reach("erase.after_tombstones")
            self._wait_for_older()
            again = _plan(
                self._conn, erasure.tenant, self._person.tenant_id, self._person.user_id, also, erasure.erased_at
            )
            erasure.person, erasure.found, erasure.by_id = again.person, again.found, again.by_id
        self._erase_queue()
        self._progress("archives")
        self._changed(erase_archives(self._conn, self._settings, self._person, self._id, self._erasure_before))
        self._erase_letters()
        self._erase_rows()
        self._erase_copies()
        self._erase_traits()
        self._erase_rows()
        self._finish(reason)

    def _erase_queue(self) -> None:
        places: list[Place] = [(row[0], row[1]) for row in self._conn.execute(_SQL["marked_batches"], self._params)]
        for number, place in enumerate(places):
            self._progress(f"batch {number + 1} of {len(places)}")
            self._changed(erase_batch(self._conn, self._person, self._id, place))
            reach("erase.after_batch")

    def _erase_letters(self) -> None:
        """Erase dead letters whose batch was dropped; the others were erased with their batch."""
        rows = self._conn.execute(
            _SQL["letters_places"], self._params | {"ids": self._marked("dead_letters")}
        ).fetchall()
        with self._conn.transaction():
            self._conn.execute(_SQL["enter"])
            self._changed(discard(self._conn, self._person, self._id, [Occurrence(*row) for row in rows]))

    def _erase_rows(self) -> None:
        """Erase remaining delivered rows: of dropped batches, and of a recovery or replay under way."""
        for _ in range(_LOOKS_MAX):
            self._progress("delivered rows")
            kept: dict[Place, set[UUID]] = {}
            gone: list[Occurrence] = []
            for batch_id, event_id, received_at, batch_received_at in self._conn.execute(
                _SQL["their_rows"], self._params
            ).fetchall():
                if batch_received_at is None:
                    gone.append(Occurrence(batch_id, -1, event_id, received_at, received_at, ""))
                else:
                    kept.setdefault((batch_id, batch_received_at), set()).add(event_id)
            if not kept and not gone:
                return
            for place, rows in kept.items():
                self._changed(erase_batch(self._conn, self._person, self._id, place, rows))
            for start in range(0, len(gone), _ROWS_AT_ONCE):
                self._erase_gone(gone[start : start + _ROWS_AT_ONCE])
        raise PipelineError("rows of this person keep appearing: stop what writes them (a replay?), then erase again")

    def _erase_gone(self, gone: list[Occurrence]) -> None:
        with self._conn.transaction():
            self._conn.execute(_SQL["enter"])
            self._changed(discard(self._conn, self._person, self._id, _with_lanes(self._conn, self._person, gone)))

    def _erase_copies(self) -> None:
        """Erase what is in no batch of the platform, and the copies that a replay keeps."""
        self._progress("copies")
        quarantined = self._conn.execute(
            _SQL["empty_quarantined"], self._params | {"ids": self._marked("quarantine")}
        ).rowcount
        legacy = self._conn.execute(_SQL["delete_legacy"], self._params).rowcount
        self._changed(Counter(quarantine=quarantined, legacy=legacy))
        for table in ("scratch", "before_images"):
            rows = self._conn.execute(_SQL[f"delete_{table}"], self._params).rowcount
            self._changed(Counter({f"replay.{table}": rows}))

    def _erase_traits(self) -> None:
        """Erase traits, also from the cache and from rows of later events that the old traits were copied into."""
        self._progress("traits")
        self._changed(Counter(traits=self._conn.execute(_SQL["delete_traits"], self._params).rowcount))
        self._wait_for_older()
        self._forget()
        self._wait_for_older()
        self._conn.execute(_SQL["strip_traits"], self._params)
        (group_traits,) = _row(self._conn, "group_traits", self._params)
        if group_traits:
            self._erasure.not_ours.append(f"{group_traits} traits of groups that this person's events set: the group's")

    def _forget(self) -> None:
        names = [Key("user", self._person.tenant_id, user).cache_key for user in sorted(self._person.users)]
        try:
            with redis.Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
                self._settings.redis_url, socket_timeout=_REDIS_S, socket_connect_timeout=_REDIS_S, protocol=2
            ) as cache:
                cache.delete(*names, *(f"flight:{name}" for name in names))
        except (redis.RedisError, OSError) as error:
            self._erasure.not_ours.append(
                f"the look-up cache does not answer ({error}): its copies go within {self._settings.lookup_ttl_s:.0f} s"
            )

    def _finish(self, reason: str) -> None:
        erasure = self._erasure
        erasure.outcomes = dict(self._conn.execute(_SQL["totals"], self._params).fetchall())
        (own_table,) = _row(self._conn, "own_table", {})
        if own_table:
            erasure.not_ours.append(f"{own_table}: the old pipeline's own table")
        if _row(self._conn, "is_mirrored", {})[0]:
            erasure.not_ours.append("what the old pipeline has under way: erase again when it has processed that")
        counts = erasure.counts()
        detail = {"erasure_id": erasure.erasure_id, "tenant": erasure.tenant, "subject_hash": erasure.subject_hash}
        with self._conn.transaction():
            self._conn.execute(_SQL["finish"], self._params | {"counts": json.dumps(counts)})
            note(self._conn, "erase", reason, detail | counts)

    @property
    def _erasure_before(self) -> datetime:
        return cast("datetime", self._erasure.erased_at)

    @property
    def _id(self) -> int:
        return cast("int", self._erasure.erasure_id)

    def _marked(self, source: str) -> list[int]:
        return [row[0] for row in self._conn.execute(_SQL["marked_ids"], self._params | {"source": source})]

    def _changed(self, rows: Counter[str]) -> None:
        self._erasure.changed.update(rows)

    def _wait_for_older(self) -> None:
        """Wait until every transaction of the platform that runs now has ended."""
        (now,) = _row(self._conn, "now", {})
        deadline = time.monotonic() + _OLDER_S_MAX
        while older := self._conn.execute(_SQL["older_transactions"], {"before": now}).fetchall():
            names = ", ".join(f"{who} since {since:%H:%M:%S}" for who, since in older)
            self._progress(f"waiting for {names}")
            if time.monotonic() > deadline:
                raise PipelineError(f"still running: {names}. Let it end or stop it, then erase again")
            time.sleep(_PAUSE_S)


def _with_lanes(conn: Conn, person: Person, gone: list[Occurrence]) -> list[Occurrence]:
    """Assign to rows of dropped batches lanes in which the account has delivered events."""
    free: dict[datetime, list[list[Any]]] = {}
    placed: list[Occurrence] = []
    for one in gone:
        hour = one.received_at.replace(minute=0, second=0, microsecond=0)
        if hour not in free:
            params = {"tenant_id": person.tenant_id, "hour": hour}
            free[hour] = [[lane, left] for lane, left in conn.execute(_SQL["lanes_of_hour"], params)]
        lanes = free[hour]
        while lanes and not lanes[0][1]:
            lanes.pop(0)
        if not lanes:
            raise PipelineError(
                f"the account of {hour.isoformat()} has fewer delivered events than there are rows; "
                "see: pipeline-platform audit"
            )
        lanes[0][1] -= 1
        placed.append(Occurrence(one.batch_id, -1, one.event_id, one.received_at, one.batch_received_at, lanes[0][0]))
    return placed


def _row(conn: Conn, query: str, params: dict[str, Any]) -> tuple[Any, ...]:
    row = conn.execute(_SQL[query], params).fetchone()
    if row is None:
        raise PipelineError(f"the database gave no answer to {query}")
    return row
