"""The ten numbers of the account, and the two lines that hold between them."""

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Numbers:
    """Counts of events, in the order of account.counters' columns."""

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
        """Both lines hold and no number is negative. Of a sum this says less than of each of its parts."""
        outcomes = self.delivered + self.duplicate + self.dead_lettered + self.discarded + self.in_flight
        return self.received == self.accepted + self.rejected and self.accepted == outcomes and min(astuple(self)) >= 0

    @property
    def delivery_rate(self) -> float | None:
        """Of all accepted events, those in flight too."""
        return delivery_rate(self.delivered + self.duplicate, self.accepted - self.discarded)

    def totals(self) -> dict[str, int]:
        """The numbers that the two lines are about, as the JSON of `funnel` and `audit` names them."""
        names = "received accepted rejected delivered duplicate dead_lettered discarded in_flight"
        return {name: getattr(self, name) for name in names.split()}

    def stages(self) -> list[dict[str, Any]]:
        """How far events got: what arrived at each stage, what went on, what failed there, what still waits."""
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
    """The part of the judged events that were delivered, 0 to 1; None where none was judged.

    good: delivered and duplicates. judged: accepted and not discarded; an objective leaves out what is in flight and
    still in time. Whatever shows a delivery rate takes it from here.
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
    """From a row that has the columns of account.funnel."""
    return Numbers(**{name: row[name] for name in Numbers.__dataclass_fields__})


def total(parts: Iterable[Numbers]) -> Numbers:
    return sum(parts, Numbers())
