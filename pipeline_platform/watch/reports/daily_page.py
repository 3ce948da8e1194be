"""The daily report as a page: reports/2026-01-31.html in the home or at files_url, replaced at each count."""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

from pipeline_platform import stores
from pipeline_platform.settings import Settings
from pipeline_platform.watch.reports.daily import Daily, Tenant
from pipeline_platform.watch.reports.frame import GREY, NEW, OLD, Figure, Tile, chart, write_page

COLUMNS = ("received", "delivered", "duplicate", "rejected", "dead_lettered", "discarded", "in_flight", "lost")
_MEANINGS = {
    "delivered": "in the tables, once",
    "duplicate": "sent again, and delivered before",
    "dead_lettered": "dead letters that wait for a redrive",
    "discarded": "given up by an operator, or erased",
    "in_flight": "not processed yet",
    "rejected": "in the quarantine",
    "lost": "nowhere",
}


def page_address(settings: Settings, found: Daily) -> str:
    """The address of the day's page."""
    return f"{stores.files_root(settings)}/reports/{found.day.isoformat()}.html"


def write_daily(found: Daily, address: str) -> None:
    """Write or replace the page at once."""
    totals = found.numbers.totals() | {"replayed": found.replayed, "lost": found.lost}
    write_page(
        address,
        Path(__file__).parent / "daily.html",
        title=f"Daily report {found.day.isoformat()}",
        day=f"{found.day:%A, %d %B %Y}",
        subtitle=_subtitle(found),
        figures=_tiles(found),
        hours=chart(_hours(found), 320),
        outcomes=[(name.replace("_", " "), text, f"{totals[name]:,}") for name, text in _MEANINGS.items()],
        causes=[(cause.outcome, cause.cause, f"{cause.events:,}", f"{cause.tenants:,}") for cause in found.causes],
        heads=[name.replace("_", " ") for name in COLUMNS],
        tenants=[_tenant(tenant) for tenant in _worst_first(found.tenants)],
    )


def _subtitle(found: Daily) -> str:
    state = "final" if found.is_final else "not final: hours are not sealed yet, or events are in flight"
    return f"What {len(found.tenants):,} tenants sent, and what became of it; {state}."


def _tiles(found: Daily) -> list[Tile]:
    numbers = found.numbers
    lost = "bad" if found.lost else "good"
    rate = numbers.delivery_rate
    return [
        Tile("new", f"{numbers.received:,}", "events received"),
        # Rounded down: 100% means all.
        Tile("new", "–" if rate is None else f"{int(rate * 1_000_000) / 10_000:.4g}%", "of accepted events delivered"),
        Tile("old", f"{numbers.rejected + numbers.dead_lettered:,}", "rejected, or dead letters that wait"),
        Tile(lost, f"{found.lost:,}", "lost"),
    ]


def _worst_first(tenants: Sequence[Tenant]) -> list[Tenant]:
    return sorted(tenants, key=lambda tenant: (-tenant.lost, -tenant.extra, -tenant.numbers.received, tenant.name))


def _tenant(tenant: Tenant) -> list[str]:
    values = tenant.to_json()
    return [tenant.name, *(f"{values[name]:,}" for name in COLUMNS)]


def _hours(found: Daily) -> Figure:
    at = [hour.hour.isoformat() for hour in found.hours]
    bars = (
        ("received", GREY, [hour.received for hour in found.hours]),
        ("delivered", NEW, [hour.delivered for hour in found.hours]),
        ("rejected or dead letters", OLD, [hour.failed for hour in found.hours]),
    )
    midnight = datetime.combine(found.day, time(), UTC)
    half = timedelta(minutes=30)
    return {
        "data": [
            {"type": "bar", "name": name, "x": at, "y": values, "marker": {"color": colour}, "offsetgroup": name}
            for name, colour, values in bars
        ],
        "layout": {
            "barmode": "group",
            "xaxis": {
                "showgrid": False,
                "tickformat": "%H:%M",
                "range": [(midnight - half).isoformat(), (midnight + timedelta(days=1) - half).isoformat()],
            },
            "yaxis": {"rangemode": "tozero", "gridcolor": GREY, "zeroline": False},
            "hovermode": "x unified",
        },
    }
