"""The oracle: what was sent and acknowledged, held against what is stored.

After the queue is drained every acknowledged event is stored exactly once, nothing is stored that was not sent, each
row holds what its event said, and the account balances and agrees with a recount of the rows.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, LiteralString

import psycopg

from pipeline_platform.account.audit import audit
from pipeline_platform_tests.support.client import Event
from pipeline_platform_tests.support.tenants import Tenant

State = Literal["acknowledged", "refused", "unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the oracle found: the line that each scenario reports."""

    seed: int
    sent: int
    acknowledged: int
    lost: list[tuple[int, str]]
    doubled: list[tuple[int, str]]
    never_sent: list[tuple[int, str]]
    altered: list[tuple[int, str]]
    account: list[Any]

    @property
    def faultless(self) -> bool:
        return not (self.lost or self.doubled or self.never_sent or self.altered or self.account)


# Judges a verdict: the fixture `report` of the scenarios.
Report = Callable[..., None]


@dataclass
class Ledger:
    """Every event that was sent, with the best answer it ever got. Safe for several threads."""

    seed: int
    _states: dict[tuple[int, str], State] = field(default_factory=dict[tuple[int, str], State])
    _numbers: dict[tuple[int, str], int] = field(default_factory=dict[tuple[int, str], int])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def event(self, tenant: Tenant, rng: random.Random) -> Event:
        """A new event, entered as sent: its outcome is unknown until somebody says so."""
        with self._lock:
            number = len(self._states)
            # Both kinds of messageId that SDKs make: UUIDs, and texts that are none.
            message_id = f"node-{self.seed}-{number}"
            if rng.random() < 0.5:
                message_id = f"{rng.getrandbits(128):032x}"
                message_id = "-".join(message_id[at:to] for at, to in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))
            key = (tenant.tenant_id, message_id)
            self._states[key] = "unknown"
            self._numbers[key] = number
        return {
            "type": "track",
            "messageId": message_id,
            "userId": f"u{number % 50}",
            "event": "Clicked",
            "timestamp": f"2026-01-02T03:04:{number % 60:02d}.{number % 1000:03d}Z",
            "properties": {"n": number, "filler": "x" * rng.randrange(200)},
        }

    def note(self, tenant: Tenant, events: Iterable[Event], state: State) -> None:
        """What an answer said; an acknowledgement is never taken back."""
        with self._lock:
            for event in events:
                key = (tenant.tenant_id, event["messageId"])
                if self._states[key] != "acknowledged":
                    self._states[key] = state

    @property
    def acknowledged(self) -> int:
        with self._lock:
            return Counter(self._states.values())["acknowledged"]

    def judge(self, conn: psycopg.Connection[Any], stored_in: LiteralString = "analytics.events") -> Verdict:
        """Hold the drained database against the ledger."""
        stored: Counter[tuple[int, str]] = Counter()
        altered: list[tuple[int, str]] = []
        for tenant_id, message_id, number in conn.execute(
            f"SELECT tenant_id, message_id, (properties->>'n')::bigint FROM {stored_in}"
        ):
            key = (tenant_id, message_id)
            stored[key] += 1
            if key in self._numbers and self._numbers[key] != number:
                altered.append(key)
        acknowledged = [key for key, state in self._states.items() if state == "acknowledged"]
        return Verdict(
            seed=self.seed,
            sent=len(self._states),
            acknowledged=len(acknowledged),
            lost=[key for key in acknowledged if key not in stored],
            doubled=[key for key, times in stored.items() if times > 1],
            never_sent=[key for key in stored if key not in self._states],
            altered=altered,
            account=account_faults(conn),
        )


def account_faults(conn: psycopg.Connection[Any]) -> list[Any]:
    """What does not balance, per tenant, hour and lane, and where counters and rows differ."""
    unbalanced = conn.execute(
        "SELECT tenant_id, hour, lane::text FROM account.funnel WHERE received <> accepted + rejected"
        " OR accepted <> delivered + duplicate + dead_lettered + discarded + in_flight OR in_flight <> 0"
        " OR least(received, accepted, rejected, claimed, enriched, delivered, duplicate, dead_lettered) < 0"
    ).fetchall()
    recounted = audit(conn)
    return [*unbalanced, *recounted.differences]


def content_hash(conn: psycopg.Connection[Any], messages: Sequence[str] | None = None) -> str:
    """Of all that the analytics rows say, but not when and in which batch they came."""
    row = conn.execute(
        "SELECT md5(coalesce(string_agg(md5(row_text), '' ORDER BY tenant_name, message_id), '')) FROM ("
        " SELECT e.tenant_name, e.message_id, (to_jsonb(e) - 'delivered_at' - 'received_at' - 'batch_id' - 'tenant_id')"
        " ::text AS row_text FROM analytics.events AS e WHERE %(messages)s::text[] IS NULL"
        " OR e.message_id = ANY(%(messages)s)) AS rows",
        {"messages": list(messages) if messages is not None else None},
    ).fetchone()
    assert row
    return row[0]
