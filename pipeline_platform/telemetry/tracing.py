"""OpenTelemetry traces, from a request at the gateway to its rows in the tables; the extra `otel`.

Off unless the standard environment variables enable it (OTEL_EXPORTER_OTLP_ENDPOINT and the others). When it is off,
OpenTelemetry is not imported and the processes run without the traced classes.

A trace is a batch. Its ids are derived from the batch's own. So the worker continues the trace of the gateway, and
`pipeline-platform trace` can name it, without storing or sending anything. Whether it is sampled follows from its id as
well (OTEL_TRACES_SAMPLER), with the same result in every process. If the collector is down, spans are lost and nothing
else.
"""

import hashlib
import importlib.util
import logging
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.trace import Span, SpanContext

_LOG = logging.getLogger(__name__)
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORTER = "opentelemetry.exporter.otlp.proto.http"
_SERVICE = "pipeline-platform"

Attributes = Mapping[str, str | int | list[str]]


def trace_id_of(batch_id: int, received_at: datetime) -> int:
    """A trace id of 128 bits, unique to this batch and this installation."""
    return int.from_bytes(_digest(batch_id, received_at)[:16], "big")


def _span_id_of(batch_id: int, received_at: datetime) -> int:
    return int.from_bytes(_digest(batch_id, received_at)[16:24], "big")


def _digest(batch_id: int, received_at: datetime) -> bytes:
    return hashlib.sha256(f"{batch_id} {int(received_at.timestamp() * 1_000_000)}".encode()).digest()


def start_tracing(process: str) -> "Tracer | None":
    """The tracer of this process, or None if tracing is not enabled."""
    if not _is_wanted():
        return None
    if not _is_installed():
        _LOG.warning("traces are asked for (OTEL_…) and cannot be made: install pipeline-platform[otel]")
        return None
    return Tracer(process)


def _is_wanted() -> bool:
    given = os.environ
    if given.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = given.get("OTEL_TRACES_EXPORTER", "")
    return exporter == "otlp" or (not exporter and any(given.get(name) for name in _ENDPOINTS))


def _is_installed() -> bool:
    try:
        return all(importlib.util.find_spec(each) for each in ("opentelemetry.sdk", _EXPORTER))
    except ModuleNotFoundError:
        return False


@contextmanager
def never_in_the_way() -> Generator[None]:
    """Around the making of spans: errors are logged and not raised, since the events are stored by then."""
    try:
        yield
    except Exception:  # noqa: BLE001 -- a span must not cost an event
        _LOG.exception("a batch was not traced")


class Tracer:
    """Makes spans of batches after their end, when their times are known, and hands them to the exporter's thread."""

    def __init__(self, process: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": _SERVICE}
        self._ids = _given_ids()
        self._provider: TracerProvider = TracerProvider(
            resource=Resource.create({**named, "service.instance.id": process}), id_generator=self._ids.generator
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("pipeline_platform")

    def batch(self, batch_id: int, received_at: datetime) -> "BatchTrace | None":
        """The batch's trace, or None if it is not sampled."""
        trace_id = trace_id_of(batch_id, received_at)
        sampled = self._provider.sampler.should_sample(None, trace_id, "pipeline.batch").decision
        return BatchTrace(self, batch_id, received_at) if sampled.is_sampled() else None

    def span(
        self,
        name: str,
        parent: "SpanContext | None",
        times_ns: tuple[int, int],
        attributes: Attributes,
        ids: tuple[int, int] | None = None,
    ) -> "SpanContext":
        """One finished span. ids: the trace id and span id that it must have."""
        from opentelemetry.context import Context
        from opentelemetry.trace import NonRecordingSpan, set_span_in_context

        context = set_span_in_context(NonRecordingSpan(parent), Context()) if parent else Context()
        with self._ids.given(ids):
            span: Span = self._tracer.start_span(name, context, attributes=attributes, start_time=times_ns[0])
        span.end(times_ns[1])
        return span.get_span_context()


class BatchTrace:
    """The spans of one batch."""

    def __init__(self, tracer: Tracer, batch_id: int, received_at: datetime) -> None:
        from opentelemetry.trace import SpanContext, TraceFlags

        self._tracer = tracer
        self._named: Attributes = {"pipeline.batch_id": batch_id}
        self._ids = (trace_id_of(batch_id, received_at), _span_id_of(batch_id, received_at))
        self._root = SpanContext(*self._ids, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def root(self, times_ns: tuple[int, int], attributes: Attributes) -> None:
        """The root span, above all other spans of the batch. The process that accepts the batch makes it."""
        self._tracer.span("pipeline.batch", None, times_ns, {**self._named, **attributes}, self._ids)

    def span(
        self, name: str, times_ns: tuple[int, int], attributes: Attributes, parent: "SpanContext | None" = None
    ) -> "SpanContext":
        """A finished span below `parent`, or below the root."""
        return self._tracer.span(name, parent or self._root, times_ns, {**self._named, **attributes})


class _GivenIds:
    """Random ids, except for a span that is made inside `given`."""

    def __init__(self) -> None:
        self.ids: tuple[int, int] | None = None
        self.generator: IdGenerator

    @contextmanager
    def given(self, ids: tuple[int, int] | None) -> Generator[None]:
        self.ids = ids
        try:
            yield
        finally:
            self.ids = None


def _given_ids() -> _GivenIds:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    given = _GivenIds()

    class Generator(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            return given.ids[0] if given.ids else super().generate_trace_id()

        def generate_span_id(self) -> int:
            return given.ids[1] if given.ids else super().generate_span_id()

    given.generator = Generator()
    return given
