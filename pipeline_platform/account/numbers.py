"""The ten numbers of the account, and the two equations between them."""

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Numbers:
    """Counts of events, in the order of the columns of account.counters."""

    received: int = 0
    accepted: int = 0
    rejected: int = 0
    claimed: int = 0
    enriched: int = 0
    delivered: int = 0
    duplicate: int = 0
    dead_lettered: int = 0
    discarded: int = 0
    in_flight: int = 0

    def __add__(self, other: "Numbers") -> "Numbers":
        return Numbers(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))

    @property
    def balanced(self) -> bool:
        """Both equations hold and no number is negative. A balanced sum does not prove that each of its parts is
        balanced.
        """
        outcomes = self.delivered + self.duplicate + self.dead_lettered + self.discarded + self.in_flight
        return self.received == self.accepted + self.rejected and self.accepted == outcomes and min(astuple(self)) >= 0

    @property
    def delivery_rate(self) -> float | None:
        """The delivery rate of all accepted events, including those in flight."""
        return delivery_rate(self.delivered + self.duplicate, self.accepted - self.discarded)

    def totals(self) -> dict[str, int]:
        """The numbers in the two equations, with the names that the JSON of `funnel` and `audit` uses."""
        names = "received accepted rejected delivered duplicate dead_lettered discarded in_flight"
        return {name: getattr(self, name) for name in names.split()}

    def stages(self) -> list[dict[str, Any]]:
        """How far events got: for each stage what arrived, what went on, what failed and what still waits."""
        not_enriched = self.claimed - self.enriched
        not_loaded = self.enriched - self.delivered - self.duplicate
        return [
            _stage("received", self.received, self.accepted, self.rejected),
            _stage("accepted", self.accepted, self.claimed, 0, waiting=self.accepted - self.claimed),
            _stage("claimed", self.claimed, self.enriched, not_enriched),
            _stage("enriched", self.enriched, self.delivered, not_loaded, duplicate=self.duplicate),
            _stage("delivered", self.delivered, self.delivered, 0),
        ]


def delivery_rate(good: int, judged: int) -> float | None:
    """The part of the judged events that were delivered, 0 to 1; None if none was judged.

    good: delivered and duplicate events. judged: accepted and not discarded events; an objective also leaves out events
    that are in flight and still in time. Every delivery rate that is shown comes from this function.
    """
    return good / judged if judged else None


def _stage(
    name: str, arrived: int, proceeded: int, failed: int, waiting: int = 0, duplicate: int = 0
) -> dict[str, Any]:
    return {
        "stage": name,
        "arrived": arrived,
        "proceeded": proceeded,
        "failed": failed,
        "waiting": waiting,
        "duplicate": duplicate,
    }


def numbers_of(row: Mapping[str, Any]) -> Numbers:
    """Make Numbers of a row that has the columns of account.funnel."""
    return Numbers(**{name: row[name] for name in Numbers.__dataclass_fields__})


def total(parts: Iterable[Numbers]) -> Numbers:
    return sum(parts, Numbers())
