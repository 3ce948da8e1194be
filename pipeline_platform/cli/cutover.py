"""cutover status, to, back: which pipeline is production."""

from typing import Annotated

import typer

from pipeline_platform.cli.output import (
    AsJson,
    DryRun,
    console,
    database,
    print_json,
    print_rows,
    running_settings,
)
from pipeline_platform.migration.cutover.phases import Phase

Reason = Annotated[str, typer.Option(help="Why; goes into the audit log.")]


def register(app: typer.Typer) -> None:
    cutover = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Which pipeline is production.")
    cutover.command("status")(status)
    cutover.command("to")(to)
    cutover.command("back")(back)
    app.add_typer(cutover, name="cutover")


def status(as_json: AsJson = False) -> None:
    """The phase, the gate of the next one with what it waits for, and the watch after a cutover.

    Example: pipeline-platform cutover status
    """
    from pipeline_platform.migration.cutover.transition import status as status_of

    settings = running_settings()
    with database() as conn:
        found = status_of(conn, settings)
    if as_json:
        print_json(found.to_json())
        return
    here = found.current
    production = "the old pipeline" if here.is_shadow else "the platform"
    console.print(f"phase {here.phase} since {here.since:%Y-%m-%d %H:%M:%S} UTC (epoch {here.epoch})", highlight=False)
    mirrored = "every event goes to the old pipeline as well" if here.is_mirrored else "nothing goes to an old pipeline"
    console.print(f"production is {production}; {mirrored}", highlight=False)
    if found.reason:
        console.print(f"turned by {found.actor}: {found.reason}", highlight=False, markup=False)
    rows = [
        {"condition": each.name, "": "met" if each.is_met else "NOT MET", "found": each.found,
         "remedy": "" if each.is_met else each.remedy}
        for each in found.gate
    ]  # fmt: skip
    verdict = "open" if found.gate_is_open else "closed"
    print_rows(rows, ("condition", "", "found", "remedy"), title=f"Gate to {found.next_phase}: {verdict}", empty="")
    if found.watch_ends_at:
        when = f"{found.watch_ends_at:%Y-%m-%d %H:%M:%S} UTC"
        console.print(f"the watch {'goes on until' if found.is_watching else 'was over at'} {when}", highlight=False)
    for anomaly in found.anomalies:
        console.print(f"ANOMALY {anomaly.name}: {anomaly.found}; {anomaly.remedy}", highlight=False, markup=False)


def to(
    phase: Annotated[Phase, typer.Argument(help="The phase to enter.")],
    force: Annotated[bool, typer.Option("--force", help="Ignore the gate; needs --reason.")] = False,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Enter the next phase. Exit 1 if its gate is closed.

    Example: pipeline-platform cutover to platform_primary --reason "24 hours of parity"
    """
    from pipeline_platform.migration.cutover.gates import gate_of, is_open
    from pipeline_platform.migration.cutover.transition import turn

    settings = running_settings()
    with database() as conn:
        if dry_run:
            gate = gate_of(conn, settings, phase)
            closed = [condition for condition in gate if not condition.is_met]
            if as_json:
                print_json({"phase": phase.value, "gate_open": not closed, "waits_for": [each.name for each in closed]})
            else:
                said = "; ".join(f"{each.name}: {each.found}" for each in closed)
                console.print(f"the gate to {phase} is {f'closed. {said}' if closed else 'open'}", highlight=False)
            raise typer.Exit(0 if is_open(gate) or force else 1)
        epoch = turn(conn, settings, phase, reason=reason, force=force)
    _say(phase, epoch, as_json=as_json)


def back(
    from_: Annotated[Phase, typer.Option("--from", help="The phase to leave: a second turn back at once is refused.")],
    reason: Reason = "turned back by hand",
    as_json: AsJson = False,
) -> None:
    """Return to the previous phase at once, without a gate. No event is lost: each belongs to one pipeline.

    Example: pipeline-platform cutover back --from platform_primary --reason "latency alert"
    """
    from pipeline_platform.migration.cutover.phases import current
    from pipeline_platform.migration.cutover.transition import back as turn_back

    with database() as conn:
        epoch = turn_back(conn, from_, reason=reason)
        phase = current(conn).phase
    _say(phase, epoch, as_json=as_json)


def _say(phase: Phase, epoch: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"phase": phase.value, "epoch": epoch})
    else:
        console.print(f"phase {phase}, epoch {epoch}", highlight=False)
