"""The engine with traces. It replaces the plain one if the environment enables traces."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from pipeline_platform.dead_letters.circuit import Circuit
from pipeline_platform.dead_letters.store import Failure
from pipeline_platform.event.types import QueuedEvent
from pipeline_platform.lookups import Lookups
from pipeline_platform.queue.batches import Work
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.tracing import Tracer, never_in_the_way
from pipeline_platform.worker.engine import Claim, Engine, Processed
from pipeline_platform.worker.enrich import Enriched
from pipeline_platform.worker.transform import Row, Transform, transform


class TracedEngine(Engine):
    """Makes a span of the step for each batch in it, with a span for each part. A failed step makes none."""

    def __init__(
        self,
        tracer: Tracer,
        settings: Settings,
        conn: psycopg.Connection[Any],
        lookups: Lookups,
        circuit: Circuit | None = None,
        transform: Transform = transform,
    ) -> None:
        super().__init__(settings, conn, lookups, circuit, transform)
        self._tracer = tracer
        self._works: Sequence[Work] = ()
        # When each part began. A part ends when the next one begins. The load ends with its commit.
        self._began_ns: dict[str, int] = {}

    def step(self, claim: Claim, noted: Callable[[Sequence[Work]], None] | None = None) -> Processed:
        """The same as in Engine."""

        def traced_claim(conn: psycopg.Connection[Any]) -> list[Work]:
            self._began_ns = {"worker.claim": time.time_ns()}
            found = claim(conn)
            self._works = found
            return found

        done = super().step(traced_claim, noted)
        if self._works:
            with never_in_the_way():
                self._trace(time.time_ns(), done)
        return done

    def _transform(self, works: Sequence[Work]) -> tuple[list[tuple[QueuedEvent, Row]], list[Failure]]:
        self._began_ns["worker.transform"] = time.time_ns()
        return super()._transform(works)

    def _enrich(self, transformed: Sequence[tuple[QueuedEvent, Row]], *, cached: bool = True) -> list[Enriched]:
        self._began_ns.setdefault("worker.enrich", time.time_ns())
        return super()._enrich(transformed, cached=cached)

    def _load(self, rows: Sequence[Enriched]) -> list[psycopg.Cursor[Any]]:
        # The slow path enriches and loads in parts.
        self._began_ns.setdefault("worker.load", time.time_ns())
        return super()._load(rows)

    def _trace(self, end_ns: int, done: Processed) -> None:
        begins = list(self._began_ns.values())
        parts = list(zip(self._began_ns, begins, [*begins[1:], end_ns], strict=True))
        for work in self._works:
            batch = self._tracer.batch(work.batch.batch_id, work.batch.received_at)
            if batch is None:
                continue
            attributes = {
                "pipeline.lane": work.lane.value,
                "pipeline.work_id": work.work_id,
                "pipeline.events": work.events,
                "pipeline.batches_together": len(self._works),
                "pipeline.dead_lettered_together": done.dead_lettered,
            }
            process = batch.span("worker.process", (begins[0], end_ns), attributes)
            for name, begin_ns, part_end_ns in parts:
                batch.span(name, (begin_ns, part_end_ns), {}, process)
