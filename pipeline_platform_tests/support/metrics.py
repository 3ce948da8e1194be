"""`/metrics` served and read: its samples by name and labels."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families as text_metrics
from starlette.applications import Starlette

from pipeline_platform.event.types import TenantId
from pipeline_platform.local.services.process import free_port
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.metrics.catalogue import STAGES
from pipeline_platform.telemetry.metrics.endpoint import metrics_route
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
AS_TEXT = {"Accept": "text/plain"}


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The address of an application of our own that mounts the route."""
    port = free_port()
    app = Starlette(routes=[metrics_route(settings)])
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for("the server", lambda: server.started)
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        server.should_exit = True
        thread.join()


def samples_of(text: str) -> Samples:
    """Every sample of an answer in the text format."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_metrics(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """KeyError where there is no such sample."""
    return samples[name, tuple(sorted(labels.items()))]


def events_of(samples: Samples, tenant: str) -> dict[str, float]:
    """A tenant's events by stage."""
    return {stage: value(samples, "pipeline_events_total", tenant=tenant, stage=stage) for stage in STAGES}


def count(conn: Conn, tenant: TenantId, **numbers: int) -> None:
    """As a transaction counts in this hour."""
    columns = ", ".join(numbers)
    values = ", ".join(map(str, numbers.values()))
    conn.execute(
        f"INSERT INTO account.deltas (tenant_id, hour, lane, {columns}) "
        f"VALUES ({tenant}, date_trunc('hour', now(), 'UTC'), 'live', {values})".encode()
    )


def assert_promtool_approves(text: str) -> None:
    """Of the names and types of an answer; skips the test where promtool is not installed."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: prometheus): the names were NOT judged by it")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
