"""The result of a reconciliation: counts by tenant, the stages that lost events, the fields that differ."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from datetime import datetime
from typing import Any

# A tenant with so many accepted events, none of which was matched, is no chance, even where an old pipeline drops more
# than half: its name or ids are read wrongly.
UNMATCHED_MIN = 50


@dataclass(frozen=True, slots=True)
class Counts:
    """Events by identity; of one tenant or of all.

    accepted: in the window, without events that were sent again and belong to another window. platform, legacy:
    delivered by each (when settled: platform = matched + mismatched + dropped, legacy = matched + mismatched + extra).
    dropped: only in the platform's output. extra: only in the old pipeline's. missing: accepted and not in production.
    recovered: part of dropped. duplicates: further rows in the old pipeline's output.
    """

    accepted: int = 0
    platform: int = 0
    legacy: int = 0
    matched: int = 0
    mismatched: int = 0
    dropped: int = 0
    extra: int = 0
    missing: int = 0
    duplicates: int = 0
    recovered: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))

    @property
    def has_drift(self) -> bool:
        return self.missing + self.extra + self.mismatched > 0

    @staticmethod
    def of(found: Mapping[str, int]) -> "Counts":
        """From the numbers of the query `counts`, by name; a missing one is 0."""

        def get(name: str) -> int:
            return found.get(name, 0)

        platform, mismatched, extra, dropped = get("platform"), get("mismatched"), get("extra"), get("dropped")
        matched = platform - mismatched - dropped - get("in_mirror")
        met_rows = get("legacy_rows") - get("unmet_rows") + get("late_rows")
        met_events = platform - get("unmet_events") + get("late_events")
        return Counts(
            accepted=platform + get("undelivered"),
            platform=platform,
            legacy=matched + mismatched + extra,
            matched=matched,
            mismatched=mismatched,
            dropped=dropped,
            extra=extra,
            missing=get("missing"),
            duplicates=met_rows - met_events,
            recovered=get("recovered"),
        )


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant's counts. name: the id if the tenant no longer exists."""

    tenant_id: int
    name: str
    counts: Counts

    def to_json(self) -> dict[str, Any]:
        return {"tenant": self.name, **asdict(self.counts), "drift": self.counts.has_drift}


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The comparison of one window.

    waits_for: why the numbers may still change; empty if it is settled. coverage: what was compared, and what could
    not be (in_flight, in_mirror, discarded), `undelivered` in all, `elsewhere`: sent again, compared in another window.
    tenants: the largest first. fields: events by the field that differs. stages: dropped events by the stage that
    reported them, 'unreported' if none did. samples: some events of each kind; types and lengths, never values.
    """

    start: datetime
    end: datetime
    waits_for: Sequence[str]
    coverage: Mapping[str, Any]
    tenants: Sequence[Tenant]
    fields: Mapping[str, int]
    stages: Mapping[str, int]
    samples: Sequence[Mapping[str, Any]]
    seconds: float

    @property
    def is_settled(self) -> bool:
        return not self.waits_for

    @property
    def totals(self) -> Counts:
        return sum((tenant.counts for tenant in self.tenants), Counts())

    @property
    def has_drift(self) -> bool:
        """An event is missing, extra or different."""
        return self.totals.has_drift

    @property
    def unmatched_tenants(self) -> Sequence[str]:
        """Tenants of which nothing was compared, although enough was accepted: their rows are read wrongly."""
        return [
            tenant.name
            for tenant in self.tenants
            if tenant.counts.accepted >= UNMATCHED_MIN and tenant.counts.matched + tenant.counts.mismatched == 0
        ]

    @property
    def unknown_rows(self) -> int:
        """Rows of the old pipeline without a known tenant, an id or a time."""
        return self.coverage["unknown_rows"] + self.coverage["untimed_rows"]

    @property
    def has_parity(self) -> bool:
        """The platform delivered all accepted events except discarded ones, nothing else, and with equal content.

        It is a claim about events that were compared: not where none was, or where rows belong to no event.
        """
        totals = self.totals
        is_compared = totals.matched > 0 or totals.accepted == 0
        return (
            is_compared
            and totals.extra + totals.mismatched + self.unknown_rows == 0
            and not self.unmatched_tenants
            and self.coverage["undelivered"] == self.coverage["discarded"]
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "from": self.start,
            "to": self.end,
            "settled": self.is_settled,
            "waits_for": list(self.waits_for),
            "coverage": dict(self.coverage),
            **asdict(self.totals),
            "fields": dict(self.fields),
            "stages": dict(self.stages),
            "tenants": [tenant.to_json() for tenant in self.tenants],
            "samples": list(self.samples),
            "unmatched_tenants": list(self.unmatched_tenants),
            "drift": self.has_drift,
            "parity": self.has_parity,
        }
