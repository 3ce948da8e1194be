"""The daily report's page shows every number of the day and no markup from outside."""

from datetime import UTC, date, datetime
from pathlib import Path

from pipeline_platform.account.numbers import Numbers
from pipeline_platform.watch.reports.daily import Cause, Daily, Hour, Tenant
from pipeline_platform.watch.reports.daily_page import write_daily

_HOUR = Hour(datetime(2026, 1, 31, 5, tzinfo=UTC), 12_345, 12_345, 0)


def _page(tmp_path: Path, *tenants: Tenant, causes: tuple[Cause, ...] = ()) -> str:
    path = tmp_path / "reports" / "2026-01-31.html"
    write_daily(Daily(date(2026, 1, 31), tenants, [_HOUR], causes, is_final=True), path)
    return path.read_text().partition("<main>")[2]


def test_the_page_shows_tenants_and_causes_as_text(tmp_path: Path) -> None:
    numbers = Numbers(received=12_345, accepted=12_345, delivered=12_345)
    page = _page(tmp_path, Tenant("<b>acme</b>", numbers, 12_345), causes=(Cause("rejected", "a < b", 7, 1),))
    assert "&lt;b&gt;acme&lt;/b&gt;" in page
    assert "a &lt; b" in page
    assert '<td class="number">12,345</td>' in page
    assert "Saturday, 31 January 2026" in page
    assert 'class="plotly-graph-div"' in page


def test_a_day_without_events_says_so(tmp_path: Path) -> None:
    page = _page(tmp_path)
    assert "<td>nobody</td>" in page
    assert "<td>none</td>" in page
