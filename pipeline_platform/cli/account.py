"""funnel, audit, trace: the outcomes of events."""

import json
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from pipeline_platform.account.audit import audit as audit_rows
from pipeline_platform.account.funnel import Funnel, Part, funnel_of
from pipeline_platform.account.legacy_pipeline import LegacyPipeline
from pipeline_platform.account.trace import trace as trace_event
from pipeline_platform.cli.output import (
    AsJson,
    console,
    database,
    print_json,
    print_rows,
    progress_bar,
    running_settings,
)
from pipeline_platform.cli.since import Since, since_of
from pipeline_platform.event.types import event_id_of

_NUMBERS = ["received", "accepted", "rejected", "delivered", "duplicate", "dead_lettered", "discarded", "in_flight"]


def register(app: typer.Typer) -> None:
    app.command()(funnel)
    app.command()(audit)
    app.command()(trace)


def _numbers_table(title: str, first: str, parts: list[tuple[str, Part]]) -> Table:
    table = Table(
        first,
        *(number.replace("_", " ") for number in _NUMBERS),
        "balanced",
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
    )
    for name, part in parts:
        totals = part.numbers.totals()
        table.add_row(name, *(f"{totals[number]:,}" for number in _NUMBERS), "yes" if part.balanced else "NO")
    return table


def _print_funnel(found: Funnel) -> None:
    console.print(_numbers_table("Account", "", [("all", found.whole)]))
    stages = Table(
        "stage",
        "arrived",
        "proceeded",
        "failed",
        "waiting",
        "duplicate",
        title="Stages",
        title_justify="left",
        box=SIMPLE_HEAD,
    )
    for stage in found.numbers.stages():
        numbers = ("arrived", "proceeded", "failed", "waiting", "duplicate")
        stages.add_row(stage["stage"], *(f"{stage[number]:,}" for number in numbers))
    console.print(stages)
    if found.tenants:
        console.print(_numbers_table("Tenants", "tenant", [(part.tenant or "", part) for part in found.tenants]))
    if found.causes:
        causes = Table(
            "failed in",
            "outcome",
            "events",
            "cause",
            "example",
            title="Where events ended",
            title_justify="left",
            box=SIMPLE_HEAD,
        )
        for cause in found.causes:
            causes.add_row(cause.failed_in, cause.outcome, f"{cause.events:,}", cause.cause, cause.example)
        console.print(causes)
    if found.legacy_pipeline:
        _print_legacy_pipeline(found.legacy_pipeline)


def _print_legacy_pipeline(found: LegacyPipeline) -> None:
    columns = ("stage", "arrived", "proceeded", "failed")
    stages = Table(*columns, title="The old pipeline, as it counts itself", title_justify="left", box=SIMPLE_HEAD)
    for stage in found.stages:
        stages.add_row(stage.stage, f"{stage.arrived:,}", f"{stage.proceeded:,}", f"{stage.failed:,}")
    console.print(stages)
    rows = [{**cause, "events": f"{cause['events']:,}"} for cause in found.causes]
    if rows:
        print_rows(rows, ("stage", "cause", "events"), title="Where its events were lost", empty="")
    said = "does not say what it delivered" if found.delivered is None else f"reports {found.delivered:,} as delivered"
    console.print(f"of {found.mirrored:,} events it {said}; proof: pipeline-platform reconcile", highlight=False)


def funnel(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    since: Since = None,
    as_json: AsJson = False,
) -> None:
    """The account of every event, by stage, tenant, hour and lane. Exit 1 if it does not balance.

    Example: pipeline-platform funnel --since 2h
    """
    with database() as conn:
        found = funnel_of(conn, tenant, since_of(since))
    if as_json:
        print_json(found.to_json())
    else:
        _print_funnel(found)
    raise typer.Exit(0 if found.balanced else 1)


def audit(
    full: Annotated[
        bool, typer.Option("--full", help="Count all rows of production again, also of days that have not changed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Recount the account from the rows: by key over all kept hours, and production as a whole. Exit 1 if anything
    differs.

    Example: pipeline-platform audit
    """
    retention = running_settings().retention
    with database() as conn, progress_bar() as bar:
        task = bar.add_task("hours recounted", total=None)
        found = audit_rows(
            conn,
            lambda done, total: bar.update(task, completed=done, total=total),
            retention=retention,
            full=full,
        )
    answer = found.to_json()
    if as_json:
        print_json(answer | {"differences": [_plain(difference) for difference in found.differences]})
    else:
        totals = found.numbers.totals()
        console.print("  ".join(f"{name} {totals[name]:,}" for name in _NUMBERS), highlight=False)
        excluded = answer["excluded"]
        if excluded["hours"]:
            console.print(f"not recounted: {excluded['hours']} hours whose batches are past retention", highlight=False)
        for difference in found.differences:
            shown = json.dumps(_plain(difference), default=str)
            console.print(f"differs: {shown}", highlight=False, markup=False, soft_wrap=True)
        rows = found.production
        console.print(
            f"production: {rows.rows + rows.shadow_rows:,} rows of {rows.days} days; days counted now: "
            f"{rows.counted_days}",
            highlight=False,
        )
        verdict = "rows and account agree" if not found.differences else "ROWS AND ACCOUNT DIFFER"
        console.print(f"{len(found.hours)} hours recounted: {verdict}", highlight=False)
    raise typer.Exit(0 if not found.differences and found.balanced else 1)


def _plain(difference: object) -> dict[str, object]:
    slots: tuple[str, ...] = getattr(type(difference), "__slots__", ())
    return {name: getattr(difference, name) for name in slots}


def trace(
    message_id: Annotated[str, typer.Argument(help="The event's messageId.")],
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Every stage that one event reached, and its outcome. Exit 1 if nothing is known of it.

    Example: pipeline-platform trace 89451a46-98e4-55a3-baba-163cc8211618
    """
    with database() as conn:
        found = trace_event(conn, message_id, event_id_of(message_id), tenant)
    if as_json:
        print_json(found.to_json())
    elif not found.found:
        console.print(f"nothing is known of {message_id}", highlight=False)
    else:
        for step in found.timeline:
            shown = "  ".join(f"{key}={value}" for key, value in step.items() if key not in ("at", "stage", "seconds"))
            line = f"{step['at']:%Y-%m-%d %H:%M:%S.%f} {step['seconds'] * 1000:+.1f} ms  {step['stage']:<12} {shown}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        parts = {
            "accepted": found.accepted,
            "delivered": found.delivered,
            "dead letter": found.dead_letters,
            "quarantined": found.quarantined,
        }
        for name, rows in parts.items():
            for row in rows:
                shown = "  ".join(f"{key}={value}" for key, value in row.items() if value is not None)
                console.print(f"{name}: {shown}", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(0 if found.found else 1)
