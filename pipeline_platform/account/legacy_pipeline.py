"""The old pipeline's side of the funnel: the counts that its stages report, and where its events are lost.

These counts are reports, not an account: a stage that crashed reports nothing, and nothing is proved.
`pipeline-platform reconcile` finds what the old pipeline really delivered. This side exists only during a migration.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipeline_platform.db import queries

_SQL = queries("legacy_counts")


@dataclass(frozen=True, slots=True)
class LegacyStage:
    """One stage in the order of the route: events that arrived, that went on, and that were reported as failed."""

    stage: str
    arrived: int
    proceeded: int
    failed: int


@dataclass(frozen=True, slots=True)
class LegacyPipeline:
    """Its counts of a selection. tenants: (name, mirrored, delivered). causes: (stage, cause, events)."""

    stages: list[LegacyStage]
    tenants: list[dict[str, Any]]
    causes: list[dict[str, Any]]

    @property
    def mirrored(self) -> int:
        """Events that were mirrored to it."""
        return self.stages[0].arrived

    @property
    def delivered(self) -> int | None:
        """Events that it reports as written; None if it does not report on that stage."""
        return next((stage.proceeded for stage in self.stages if stage.stage == "write"), None)

    def to_json(self) -> dict[str, Any]:
        return {
            "mirrored": self.mirrored,
            "delivered": self.delivered,
            "stages": [asdict(stage) for stage in self.stages],
            "tenants": self.tenants,
            "causes": self.causes,
        }


def legacy_pipeline_of(
    conn: psycopg.Connection[Any], tenant_id: int | None = None, since: datetime | None = None
) -> LegacyPipeline | None:
    """The counts of the old pipeline's stages, from the hour `since` on; None if nothing was mirrored."""
    selection = {"tenant_id": tenant_id, "since": since}
    with conn.cursor(row_factory=dict_row) as cursor:
        stages = [LegacyStage(**row) for row in cursor.execute(_SQL["stages"], selection)]
        if not stages:
            return None
        tenants = cursor.execute(_SQL["tenants"], selection).fetchall()
        causes = cursor.execute(_SQL["causes"], selection).fetchall()
    return LegacyPipeline(stages, tenants, causes)
