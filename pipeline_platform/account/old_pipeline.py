"""The old pipeline's side of the funnel, as its stages counted themselves: where its events die.

Its counts are reports, not an account: a stage that crashed reports nothing, and nothing here is proved. What it really
delivered is found by `pipeline-platform reconcile`. Without a migration there is no such side.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipeline_platform.db import queries

_SQL = queries("old_pipeline")


@dataclass(frozen=True, slots=True)
class OldStage:
    """One stage in the order of the route: events that arrived, went on, and were reported as failed there."""

    stage: str
    arrived: int
    proceeded: int
    failed: int


@dataclass(frozen=True, slots=True)
class OldPipeline:
    """All of a selection; tenants: (name, mirrored, delivered); causes: stage, cause, events."""

    stages: list[OldStage]
    tenants: list[dict[str, Any]]
    causes: list[dict[str, Any]]

    @property
    def mirrored(self) -> int:
        """Events that were offered to it."""
        return self.stages[0].arrived

    @property
    def delivered(self) -> int | None:
        """Events that it reports as written; None where it does not report on that stage."""
        return next((stage.proceeded for stage in self.stages if stage.stage == "write"), None)

    def to_json(self) -> dict[str, Any]:
        return {
            "mirrored": self.mirrored,
            "delivered": self.delivered,
            "stages": [asdict(stage) for stage in self.stages],
            "tenants": self.tenants,
            "causes": self.causes,
        }


def old_pipeline_of(
    conn: psycopg.Connection[Any], tenant_id: int | None = None, since: datetime | None = None
) -> OldPipeline | None:
    """What the old pipeline's stages counted, from the hour `since` on; None where nothing was mirrored."""
    selection = {"tenant_id": tenant_id, "since": since}
    with conn.cursor(row_factory=dict_row) as cursor:
        stages = [OldStage(**row) for row in cursor.execute(_SQL["stages"], selection)]
        if not stages:
            return None
        tenants = cursor.execute(_SQL["tenants"], selection).fetchall()
        causes = cursor.execute(_SQL["causes"], selection).fetchall()
    return OldPipeline(stages, tenants, causes)
