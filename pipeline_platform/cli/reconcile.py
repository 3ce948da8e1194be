"""reconcile: compares the outputs of both pipelines, event by event."""

import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from pipeline_platform.cli.output import AsJson, console, database, log_console, print_json
from pipeline_platform.cli.values import number
from pipeline_platform.cli.windows import From, Last, To, window_of
from pipeline_platform.errors import ConfigError
from pipeline_platform.migration.reconcile import Counts, Reconciliation, Settled, default_window, settled
from pipeline_platform.migration.reconcile import reconcile as reconcile_window

_TICK_S = 0.5
_NUMBERS = tuple(Counts.__dataclass_fields__)


def register(app: typer.Typer) -> None:
    app.command()(reconcile)


def reconcile(
    start: From = None,
    end: To = None,
    last: Last = None,
    hour: Annotated[str | None, typer.Option(help="One UTC hour, as Dagster names it: 2026-01-31-14:00.")] = None,
    wait: Annotated[float, number(0, 86_400, "Seconds to wait until the window is settled.")] = 0.0,
    export: Annotated[Path | None, typer.Option(help="Directory for the result as CSV and Parquet.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare what both pipelines delivered of the events accepted in a window. Exit 1 if it drifts.

    The default window begins with the first mirrored batch that is kept. The result is stored by window, for the gates
    of a cutover.

    Example: pipeline-platform reconcile --last 1h
    """
    with database() as conn:
        begin, until = _window(conn, start, end, last, hour)
        _await_settled(conn, begin, until, wait)
        found = reconcile_window(conn, begin, until)
        if export:
            # Imported only for an export: importing pandas takes a second.
            from pipeline_platform.migration.reconcile.export import export as export_window

            for path in export_window(conn, begin, until, str(export.absolute())):
                log_console.print(f"written: {path}", highlight=False, markup=False, soft_wrap=True)
    if as_json:
        print_json(found.to_json())
    else:
        _print(found)
    raise typer.Exit(1 if found.has_drift else 0)


def _window(
    conn: psycopg.Connection[Any], start: str | None, end: str | None, last: str | None, hour: str | None
) -> tuple[datetime, datetime]:
    if hour is not None:
        if start or end or last:
            raise ConfigError("give either --hour, or --from, --to and --last")
        try:
            begin = datetime.strptime(hour, "%Y-%m-%d-%H:%M").replace(tzinfo=UTC, minute=0)
        except ValueError:
            raise ConfigError(f"--hour {hour}: not an hour like 2026-01-31-14:00") from None
        return begin, begin + timedelta(hours=1)
    begin, until = window_of(start, end, last)
    if begin is None or until is None:
        first, now = default_window(conn)
        begin, until = begin or first, until or now
    if begin >= until:
        raise ConfigError("the window ends before it begins: see --from and --to")
    return begin, until


def _await_settled(conn: psycopg.Connection[Any], begin: datetime, until: datetime, wait_s: float) -> Settled:
    deadline = time.monotonic() + wait_s
    with log_console.waiting("waiting until the window is settled") as show:
        while True:
            state = settled(conn, begin, until)
            if state.is_settled or time.monotonic() >= deadline:
                return state
            show(f"waiting: {'; '.join(state.waits_for)}")
            time.sleep(min(_TICK_S, max(0.0, deadline - time.monotonic())))


def _print(found: Reconciliation) -> None:
    table = _table("tenant", *_NUMBERS, title=f"{found.start:%Y-%m-%d %H:%M:%S} to {found.end:%Y-%m-%d %H:%M:%S} UTC")
    for name, counts in [("all", found.totals), *((tenant.name, tenant.counts) for tenant in found.tenants)]:
        table.add_row(name, *(f"{number:,}" for number in asdict(counts).values()))
    console.print(table)
    _print_counts("Dropped by the old pipeline", "stage", found.stages)
    _print_counts("Mismatched", "field", found.fields)
    for sample in found.samples:
        shown = "  ".join(f"{name}={value}" for name, value in sample.items())
        console.print(f"sample: {shown}", highlight=False, markup=False, soft_wrap=True)
    coverage = found.coverage
    console.print(
        f"compared {coverage['compared']:,} of {coverage['accepted']:,} accepted; in flight {coverage['in_flight']:,}, "
        f"waiting for the mirror {coverage['in_mirror']:,}, dead letters {coverage['dead_lettered']:,}, discarded "
        f"{coverage['discarded']:,}; {found.seconds:.1f} s",
        highlight=False,
    )
    console.print(f"compared columns: {', '.join(coverage['columns'])}", highlight=False)
    if found.unknown_rows:
        console.print(
            f"rows of the old pipeline that belong to no event: {coverage['unknown_rows']:,} without a known tenant or "
            f"an id, {coverage['untimed_rows']:,} without a time",
            highlight=False,
        )
    if found.unmatched_tenants:
        said = f"tenants of which nothing was matched (see [output.columns]): {', '.join(found.unmatched_tenants)}"
        console.print(said, highlight=False, markup=False)
    if coverage["hours_past_retention"]:
        console.print(f"of {coverage['hours_past_retention']} hours only what was delivered is known: past retention")
    for reason in found.waits_for:
        console.print(f"not settled: {reason}", highlight=False)
    console.print("DRIFT" if found.has_drift else "no drift", "parity" if found.has_parity else "no parity", sep=", ")


def _print_counts(title: str, first: str, counts: Any) -> None:
    if counts:
        table = _table(first, "events", title=title)
        for name, events in counts.items():
            table.add_row(name, f"{events:,}")
        console.print(table)


def _table(*columns: str, title: str) -> Table:
    return Table(*columns, title=title, title_justify="left", box=SIMPLE_HEAD)
