"""report: the outcomes of a day's events."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import typer

from pipeline_platform.cli.output import (
    AsJson,
    console,
    database,
    print_json,
    print_rows,
    running_settings,
)
from pipeline_platform.errors import ConfigError


def register(app: typer.Typer) -> None:
    app.command()(report)


def report(
    day: Annotated[
        str | None, typer.Option(help="The day of received_at, in UTC (2026-01-31); else yesterday.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What was received, delivered and lost on a day, by tenant; also as a page under reports/ in the home.

    Exit 1 if an event was lost. Dagster's asset daily_report does the same, every day.

    Example: pipeline-platform report --day 2026-01-31
    """
    from pipeline_platform.watch.reports.daily import count_day
    from pipeline_platform.watch.reports.daily_page import COLUMNS, page_address, write_daily

    wanted = _day(day)
    with database() as conn:
        found = count_day(conn, wanted)
    address = page_address(running_settings(), found)
    write_daily(found, address)
    if as_json:
        print_json(found.to_json() | {"file": address})
    else:
        title = f"{wanted.isoformat()}{'' if found.is_final else ' (not final)'}"
        whole = {"tenant": "all", **found.numbers.totals(), "lost": found.lost}
        rows = [whole, *(tenant.to_json() for tenant in found.tenants)]
        print_rows(rows, ("tenant", *COLUMNS), title=title, empty="")
        console.print(f"page: {address}", highlight=False, soft_wrap=True)
    raise typer.Exit(1 if found.lost else 0)


def _day(text: str | None) -> date:
    today = datetime.now(UTC).date()
    if text is None:
        return today - timedelta(days=1)
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--day {text}: no day; write it as 2026-01-31") from None
    if day > today:
        raise ConfigError(f"--day {text} has not begun: today is {today.isoformat()} (UTC)")
    return day
