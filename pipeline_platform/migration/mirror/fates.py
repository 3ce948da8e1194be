"""The results of one round of the mirror that are to be stored: the fate of each event."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pipeline_platform.event.types import QueuedEvent
from pipeline_platform.migration.mirror.target import Fate

CountKey = tuple[int, datetime, str]


class Fates:
    """The fates of a round's events, as the parameters of the query `record`."""

    def __init__(self, mirror_ids: Sequence[int]) -> None:
        self.mirror_ids = mirror_ids
        self._proceeded: Counter[CountKey] = Counter()
        self._failed: Counter[CountKey] = Counter()
        self._lost: list[tuple[int, UUID, str, str]] = []

    def note(self, events: Iterable[QueuedEvent], fate: Fate) -> None:
        """Record the fate of one request's events at each stage that the mirror reports."""
        for event in events:
            self.note_one(event.tenant_id, event.event_id, event.batch_received_at, fate)

    def note_one(self, tenant_id: int, event_id: UUID, batch_received_at: datetime, fate: Fate) -> None:
        """Record the fate of one event, by its identity."""
        hour = batch_received_at.replace(minute=0, second=0, microsecond=0)
        self._count(tenant_id, hour, "mirror", failed=fate.stage == "mirror")
        if fate.stage != "mirror" and not fate.counts_itself:
            self._count(tenant_id, hour, "gateway", failed=fate.stage == "gateway")
        if fate.stage and not fate.counts_itself:
            self._lost.append((tenant_id, event_id, fate.stage, fate.cause))

    def _count(self, tenant_id: int, hour: datetime, stage: str, *, failed: bool) -> None:
        (self._failed if failed else self._proceeded)[(tenant_id, hour, stage)] += 1

    def params(self) -> dict[str, Any]:
        keys = list(self._proceeded.keys() | self._failed.keys())
        return {
            "mirror_ids": list(self.mirror_ids),
            "tenant_ids": [key[0] for key in keys],
            "hours": [key[1] for key in keys],
            "stages": [key[2] for key in keys],
            "proceeded": [self._proceeded[key] for key in keys],
            "failed": [self._failed[key] for key in keys],
            "lost_tenant_ids": [lost[0] for lost in self._lost],
            "lost_event_ids": [lost[1] for lost in self._lost],
            "lost_stages": [lost[2] for lost in self._lost],
            "lost_causes": [lost[3] for lost in self._lost],
        }
