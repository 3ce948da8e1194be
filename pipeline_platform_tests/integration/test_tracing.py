"""Traces reach a real collector, and lead from the request to the rows; switched off they are not there at all."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pipeline_platform.local.services.process import free_port
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.client import Client
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.gateway import event
from pipeline_platform_tests.support.otlp import Collector, Span
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    for name in ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)
    with Collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield running


@pytest.fixture
def client(conn: Conn) -> Iterator[Any]:
    """Starts platforms; each with the environment of its moment."""
    key = add_tenant(conn, "acme").write_key
    yield lambda platform: Client(platform.port, key)


def started(settings: Settings) -> Platform:
    platform = Platform(settings)
    platform.start_gateway()
    platform.start_workers(workers=1)
    return platform


def test_a_trace_leads_from_the_request_to_the_load(
    settings: Settings, conn: Conn, collector: Collector, client: Any
) -> None:
    with started(settings) as platform:
        ids = [str(uuid.uuid4()), "m-2"]
        assert client(platform).send([event(each) for each in ids]).outcome == "acknowledged"
        platform.await_drained(conn)
        wait_for("the worker's spans", lambda: collector.named("worker.load"))
        wait_for("the gateway's spans", lambda: collector.named("gateway.commit"))
        wait_for("the whole trace", lambda: len(collector.spans) == 8)
    spans = {span.name: span for span in collector.spans}
    row = conn.execute("SELECT batch_id FROM queue.batches").fetchone()
    assert row
    assert len({span.trace_id for span in collector.spans}) == 1
    assert {span.attributes["pipeline.batch_id"] for span in collector.spans} == set(row)
    assert {span.service for span in collector.spans} == {"pipeline-platform"}
    root = spans["pipeline.batch"]
    assert root.parent_id == ""
    for name in ("gateway.accept", "gateway.commit", "worker.process"):
        assert spans[name].parent_id == root.span_id, name
    for part in ("claim", "transform", "enrich", "load"):
        assert spans[f"worker.{part}"].parent_id == spans["worker.process"].span_id, part
    assert spans["gateway.accept"].process == f"gateway-{platform.port}"
    assert spans["worker.load"].process == "worker-1"
    assert spans["gateway.accept"].attributes["pipeline.message_ids"] == ids
    assert spans["worker.process"].attributes["pipeline.events"] == 2
    assert_in_order(spans)
    for message_id in ids:
        traced = run_command(settings, "trace", message_id, "--json").answer
        assert [each["trace_id"] for each in traced["accepted"]] == [root.trace_id]


def assert_in_order(spans: dict[str, Span]) -> None:
    """One after the other, on clocks of one machine."""
    way = ["gateway.accept", "gateway.commit", "worker.claim", "worker.transform", "worker.enrich", "worker.load"]
    for name in way:
        assert spans[name].start_ns <= spans[name].end_ns, name
    begins = [spans[name].start_ns for name in way]
    assert begins == sorted(begins)
    assert spans["pipeline.batch"].start_ns == spans["gateway.accept"].start_ns
    assert spans["worker.process"].end_ns == spans["worker.load"].end_ns


def test_a_sampler_takes_the_same_batches_in_every_process(
    settings: Settings, conn: Conn, collector: Collector, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    with started(settings) as platform:
        sender = client(platform)
        for _ in range(40):
            assert sender.send([event()]).outcome == "acknowledged"
        platform.await_drained(conn)
        assert platform.stop_workers() == 0
        wait_for(
            "both processes' spans", lambda: _traces(collector, "gateway.commit") == _traces(collector, "worker.load")
        )
    row = conn.execute("SELECT count(*) FROM queue.batches").fetchone()
    assert row
    assert 0 < len(_traces(collector, "worker.load")) < row[0]


def _traces(collector: Collector, name: str) -> set[str]:
    return {span.trace_id for span in collector.named(name)}


def test_what_is_rejected_or_has_no_usual_message_id_disturbs_nothing(
    settings: Settings, conn: Conn, collector: Collector, client: Any
) -> None:
    with started(settings) as platform:
        sender = client(platform)
        nameless = {"type": "track", "event": "x", "userId": "u"}
        assert sender.send([{"type": "track", "event": "x"}]).accepted == 0
        assert sender.send([{**nameless, "messageId": 17}, nameless, {"type": "nonsense"}]).accepted >= 1
        platform.await_drained(conn)
        wait_for("the trace", lambda: collector.named("worker.load"))
        assert "was not traced" not in platform.log("gateway").read_text()
    assert len(collector.named("pipeline.batch")) == 1


def test_a_collector_that_is_away_costs_no_event(
    settings: Settings, conn: Conn, client: Any, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with started(settings) as platform:
        assert client(platform).send([event()]).outcome == "acknowledged"
        platform.await_drained(conn)
        wait_for("the log to say so", lambda: "opentelemetry" in platform.log("gateway").read_text())
    row = conn.execute("SELECT count(*) FROM analytics.events").fetchone()
    assert row == (1,)


_PROGRAM = """
import json, sys
import pipeline_platform.gateway.app, pipeline_platform.worker.process
from pipeline_platform.telemetry.tracing import start_tracing
is_off = start_tracing("test") is None
# The client of Redis imports other parts of it by itself, where it is installed.
ours = ("opentelemetry.sdk.trace", "opentelemetry.exporter")
print(json.dumps([is_off, any(name.startswith(ours) for name in sys.modules)]))
"""


@pytest.mark.parametrize(
    ("environment", "is_on"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_nothing_is_imported_unless_it_is_asked_for(environment: dict[str, str], is_on: bool) -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [not is_on, is_on]


def test_without_the_extra_it_runs_and_says_what_is_missing(tmp_path: Any) -> None:
    hidden = "import sys; sys.modules['opentelemetry'] = None\nimport logging; logging.basicConfig()\n"
    done = subprocess.run(
        [sys.executable, "-c", hidden + _PROGRAM], env={"OTEL_TRACES_EXPORTER": "otlp"}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)[0] is True
    assert "install pipeline-platform[otel]" in done.stderr
