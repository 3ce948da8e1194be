"""The demo's parts: traffic that repeats by seed and has a day's shape, sending that is counted, a whole report."""

import json
import re
import uuid
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from markupsafe import escape

from pipeline_platform.lab.demo import figures
from pipeline_platform.lab.demo.page import write_page
from pipeline_platform.lab.demo.playing import Playing
from pipeline_platform.lab.demo.report import Details, Report, Side, Span, promises, write_json
from pipeline_platform.lab.demo.traffic import TENANTS, Request, acts, requests
from pipeline_platform.settings import Settings
from pipeline_platform.tenants.tenants import add_tenant
from pipeline_platform_tests.support.platform import Platform

PEAK = 1.4
CAPACITY = 300.0


def played(act: str, seed: int, scale: float = 1.0) -> list[Request]:
    return list(requests(acts(PEAK, scale)[act], CAPACITY, seed))


def events_of(some: list[Request]) -> list[dict[str, Any]]:
    return [event for request in some for event in json.loads(request.body)["batch"]]


def test_the_same_seed_makes_the_same_requests_at_the_same_moments() -> None:
    assert played("shadow", 7) == played("shadow", 7)
    assert played("shadow", 7) != played("shadow", 8)


def test_every_event_of_the_day_has_an_id_of_its_own_and_a_time_in_that_day() -> None:
    events = [event for act in acts(PEAK) for event in events_of(played(act, 1, scale=0.3))]
    assert len({uuid.UUID(event["messageId"]) for event in events}) == len(events) > 1_000
    times = [datetime.fromisoformat(event["timestamp"]) for event in events]
    assert {time.date() for time in times} == {datetime(2026, 3, 2, tzinfo=UTC).date()}


def test_a_request_is_a_small_batch_of_one_tenant_in_the_order_of_its_moment() -> None:
    some = played("shadow", 1)
    assert {request.events for request in some} == set(range(1, 21))
    assert all(len(json.loads(request.body)["batch"]) == request.events for request in some[:200])
    assert [request.at_s for request in some] == sorted(request.at_s for request in some)


def test_a_few_tenants_send_most_and_nearly_all_send_something() -> None:
    by_tenant = Counter[int]()
    for request in played("shadow", 1):
        by_tenant[request.tenant] += request.events
    largest = [events for _, events in by_tenant.most_common(40)]
    assert len(by_tenant) > 0.95 * TENANTS
    assert sum(largest) > 0.4 * by_tenant.total()


def test_the_day_peaks_above_what_the_old_pipeline_carries_and_is_below_it_otherwise() -> None:
    for act, stretches in acts(PEAK).items():
        sent = Counter[str]()
        for request in played(act, 1):
            sent[request.stretch] += request.events
        for part in stretches:
            rate = sent[part.name] / part.seconds
            if part.name == "peak":
                assert 0.85 * PEAK * CAPACITY < rate < 1.15 * PEAK * CAPACITY
            else:
                assert rate < CAPACITY


def test_traits_are_known_of_users_and_accounts() -> None:
    kinds = Counter(event["type"] for event in events_of(played("shadow", 1)))
    assert set(kinds) == {"page", "track", "identify", "group"}


@pytest.fixture
def write_keys(conn: psycopg.Connection[Any]) -> list[str]:
    with conn.transaction():
        return [add_tenant(conn, f"tenant-{number:03}").write_key for number in range(TENANTS)]


def test_what_the_sender_plays_is_accepted_once_and_counted(
    settings: Settings, conn: psycopg.Connection[Any], write_keys: list[str]
) -> None:
    order = {"act": "shadow", "seed": 3, "capacity_per_s": CAPACITY, "peak_factor": PEAK, "scale": 0.05}
    with Platform(settings) as platform:
        platform.start_workers()
        platform.start_gateway()
        with Playing(order | {"port": platform.port, "write_keys": write_keys}) as playing:
            result = playing.result()
        platform.await_drained(conn)
    planned = sum(request.events for request in played("shadow", 3, scale=0.05))
    assert set(result.statuses) == {"200"}
    assert result.sent == result.acknowledged == planned
    totals = figures.totals(conn)
    assert totals["accepted"] == totals["delivered"] == planned
    assert totals["legacy_accepted"] == 0
    assert figures.live(conn).accepted == planned
    peak = next(span for span in result.stretches if span.name == "peak")
    begin, end = (datetime.fromtimestamp(at, UTC) for at in (peak.begin, peak.end))
    window = figures.window(conn, begin, end)
    assert 0 < window.accepted < planned
    assert window.delivered == window.accepted
    latency = figures.latencies(conn, begin, end)["platform"]
    assert latency.classes.total() == window.delivered
    assert latency.p95_ms > 0
    assert figures.production(conn) == (0, 0)


SIDE = Side(1_000, 900, 0.9, 0.85, 4_000.0, {"lookup": 60, "queue": 40})
REPORT = Report(SIDE, Side(1_000, 1_000, 1.0, 1.0, 40.0, {}), 100, 100, 0, 0, 7, 200.0)


def broken(**changes: Any) -> set[str]:
    """The promises that do not hold where the report says otherwise."""
    report = Report(**{field: getattr(REPORT, field) for field in Report.__dataclass_fields__} | changes)
    judged = promises(report, acknowledged=1_000, account_agrees=True)
    return {promise.text for promise in judged if not promise.kept}


def test_a_promise_is_broken_by_what_contradicts_it() -> None:
    assert broken() == set()
    assert broken(missing_after=1) == broken(doubled=1) == {"Production has every accepted event once"}
    assert broken(recovered=99) == {"Everything that the old pipeline dropped was recovered"}
    slow = Side(1_000, 1_000, 1.0, 1.0, 1_001.0, {})
    assert broken(platform=slow) == {"p95 is at most a quarter of the old pipeline's, at the peak"}
    lossy = Side(1_000, 999, 0.999, 1.0, 40.0, {"load": 1})
    assert broken(platform=lossy) == {"The platform delivered everything that it accepted"}


def test_the_report_has_the_keys_that_readers_rely_on(tmp_path: Path) -> None:
    write_json(REPORT, tmp_path / "demo-report.json")
    report = json.loads((tmp_path / "demo-report.json").read_text())
    assert set(report) == {
        "legacy", "platform", "dropped_found", "recovered", "missing_after", "doubled", "seed", "seconds",
    }  # fmt: skip
    side = {"accepted", "delivered", "delivery_rate", "delivery_rate_peak", "p95_ms", "losses"}
    assert set(report["legacy"]) == set(report["platform"]) == side


def test_the_page_needs_nothing_from_the_network(tmp_path: Path) -> None:
    moment = datetime(2026, 3, 2, tzinfo=UTC)
    details = Details(
        [figures.Second(moment, 10, 10, 9)],
        [figures.Tenant("tenant-001", 10, 10, 9)],
        {name: figures.Latency(5.0, Counter({4: 10})) for name in ("platform", "legacy")},
        [Span("shadow", moment.timestamp(), moment.timestamp() + 10)],
        Span("peak", moment.timestamp(), moment.timestamp() + 5),
    )
    kept = promises(REPORT, acknowledged=1_000, account_agrees=True)
    write_page(REPORT, details, kept, tmp_path / "demo-report.html")
    page = (tmp_path / "demo-report.html").read_text()
    assert page.count('class="plotly-graph-div"') == 4
    assert all(escape(promise.text) in page for promise in kept)
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", page)
