"""alerts list, show, test, resolve; objectives."""

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline_platform.cli.output import (
    AsJson,
    Limit,
    console,
    database,
    print_json,
    print_rows,
    running_settings,
)
from pipeline_platform.cli.values import INT8_MAX
from pipeline_platform.errors import ConfigError
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.terminal import lines
from pipeline_platform.watch.alerts.objectives import objectives_of
from pipeline_platform.watch.alerts.operations import (
    as_message,
    list_alerts,
    resolve_alert,
    show_alert,
    try_channels,
)

AlertId = Annotated[int, typer.Argument(min=1, max=INT8_MAX, help="The alert's number, from `alerts list`.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Alerts, and who was notified of them.")
    group.command("list")(list_)
    group.command()(show)
    group.command()(test)
    group.command()(resolve)
    app.add_typer(group, name="alerts")
    app.command()(objectives)


def list_(
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones as well.")] = False,
    kind: Annotated[str | None, typer.Option(help="Only this kind.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's, by name.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List the open alerts. Exit 1 if there is one.

    Example: pipeline-platform alerts list
    """
    with database() as conn:
        found = list_alerts(conn, running_settings(), everything=everything, kind=kind, tenant=tenant, limit=limit)
    if as_json:
        print_json({"alerts": found})
    else:
        rows = [
            {"alert": each["alert_id"], "": "resolved" if each["resolved_at"] else each["severity"],
             "kind": each["kind"], "tenant": each["tenant"], "since": f"{each['opened_at']:%Y-%m-%d %H:%M:%S}",
             "how many": each["occurrences"], "what": each["message"]}
            for each in found
        ]  # fmt: skip
        columns = ("alert", "", "kind", "tenant", "since", "how many", "what")
        print_rows(rows, columns, title="Alerts", empty="nothing is open")
    raise typer.Exit(1 if any(each["resolved_at"] is None for each in found) else 0)


def show(alert_id: AlertId, as_json: AsJson = False) -> None:
    """One alert as it is told, its runbook and next command, and what each channel was told when.

    Example: pipeline-platform alerts show 7
    """
    settings = running_settings()
    with database() as conn:
        found = show_alert(conn, settings, alert_id)
    if as_json:
        print_json(found)
        return
    message = as_message(found, settings)
    console.print(lines(f"{message.title}\n{message.body}"))
    print_rows(
        found["deliveries"],
        ("channel", "change", "noted_at", "sent_at", "last_error"),
        title="Told",
        empty="no channel was told: none is configured, or nothing delivers",
    )


def test(as_json: AsJson = False) -> None:
    """Send a sample through every channel and say what each answered. Exit 1 if one did not take it.

    Example: pipeline-platform alerts test
    """
    answers = try_channels(Settings.read())
    if as_json:
        print_json({"answers": [asdict(each) for each in answers]})
    else:
        rows = [{"channel": each.channel, "answer": each.error or "taken"} for each in answers]
        print_rows(rows, ("channel", "answer"), title="Channels", empty="no channel")
    raise typer.Exit(1 if any(each.error for each in answers) else 0)


def resolve(
    alert_id: AlertId, reason: Annotated[str, typer.Option(help="Why it is over; goes into the audit log.")] = ""
) -> None:
    """End an alert by hand, for example that of a failed run that nobody repeats. If the cause lasts, another opens.

    Example: pipeline-platform alerts resolve 7 --reason "the hour was processed by hand"
    """
    if not reason:
        raise ConfigError("say why it is over with --reason")
    with database() as conn:
        resolve_alert(conn, alert_id, reason)


def objectives(as_json: AsJson = False) -> None:
    """Show whether the objectives are met and what is left of the error budget. Exit 1 if one is not met.

    Example: pipeline-platform objectives
    """
    settings = running_settings()
    with database() as conn:
        found = objectives_of(conn, settings)
    if as_json:
        print_json(found)
        raise typer.Exit(0 if found["met"] else 1)
    lag, latency = found["lag"], found["latency"]
    p95 = "nothing was delivered lately" if latency["p95_ms"] is None else f"{latency['p95_ms']:.1f} ms"
    console.print(f"lag      {lag['s']:.1f} s, at most {lag['objective_s']:g} s", highlight=False)
    console.print(f"latency  p95 {p95}, at most {latency['objective_ms']:g} ms", highlight=False)
    rows = [
        {"window": f"{each['window_h']} h", "tenant": each["tenant"] or "all", "good": each["good"], "bad": each["bad"],
         "rate": f"{100 * each['rate']:.4f}%" if each["rate"] is not None else "",
         "budget left": f"{100 * each['left']:.1f}%" if each["left"] is not None else "",
         "": "" if each["is_met"] else "NOT MET"}
        for each in [*found["windows"], *found["tenants"]]
    ]  # fmt: skip
    columns = ("window", "tenant", "good", "bad", "rate", "budget left", "")
    title = f"Delivered: {100 * found['delivered_ratio']:g}%"
    print_rows(rows, columns, title=title, empty="nothing was accepted yet")
    raise typer.Exit(0 if found["met"] else 1)
