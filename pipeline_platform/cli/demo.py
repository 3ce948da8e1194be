"""demo: plays a whole migration in minutes."""

import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline_platform.cli.output import AsJson, console, log_console, print_json
from pipeline_platform.cli.values import INT4_MAX, number
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.terminal import lines, ticked

if TYPE_CHECKING:
    from pipeline_platform.lab.demo.report import Promise


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    seed: Annotated[
        int, typer.Option(min=0, max=INT4_MAX, help="The same seed makes the same events at the same times.")
    ] = 1,
    scale: Annotated[float, number(0.1, 10, "Factor for the length of the day; the rates stay the same.")] = 1.0,
    leave: Annotated[bool, typer.Option("--exit", help="Stop everything at the end, in a terminal as well.")] = False,
    as_json: AsJson = False,
) -> None:
    """Play a migration on real servers: shadow run, reconciliation, cutover under load, recovery; measure all of it.

    Takes less than five minutes. Writes demo-report.json and demo-report.html into the home. In a terminal it goes on
    serving until Ctrl-C. Exit 1 if a promise was not kept. Its servers and data are its own, in the directory demo
    of the home, and are made anew each time.

    Example: pipeline-platform demo --seed 7
    """
    from pipeline_platform.lab.demo.platform import running_platform, settings_of_demo
    from pipeline_platform.lab.demo.report import table
    from pipeline_platform.lab.demo.story import play

    began = time.monotonic()
    settings = Settings.read()
    stays = sys.stdin.isatty() and sys.stdout.isatty() and not (leave or as_json)
    own = settings_of_demo(settings, scale)
    with running_platform(own) as running:
        outcome = play(own, running, reports=settings.home, seed=seed, scale=scale, began=began, console=log_console)
        if as_json:
            print_json(outcome.report.to_json())
        else:
            console.print(table(outcome.report))
            _print_promises(outcome.promises)
        _say(f"\nReport: {settings.home / 'demo-report.html'} and {settings.home / 'demo-report.json'}")
        if stays:
            _say(_still_serving(own.home, running.dagster))
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
    if not stays:
        _say(f"To look at it in Dagster: PIPELINE_HOME={own.home} {sys.argv[0]} up --with-legacy")
    raise typer.Exit(0 if outcome.kept else 1)


def _print_promises(promises: "list[Promise]") -> None:
    for promise in promises:
        broken = "" if promise.kept else "broken: "
        console.print(ticked(promise.kept, f"{broken}{promise.text}: {promise.measured}"))


def _still_serving(home: Path, dagster: str | None) -> str:
    command = f"PIPELINE_HOME={home} {sys.argv[0]}"
    return f"""
Dagster serves at {dagster}
Look at
  {dagster}/locations/pipeline_platform/asset-groups/migration  what was dropped and recovered, hour by hour
  {dagster}/locations/pipeline_platform/asset-groups/events     what was accepted and delivered
  {dagster}/runs  the reconciliation and the recovery, with their logs
In another terminal:
  {command} funnel          # every event accounted for, both pipelines side by side
  {command} cutover status  # the phase, and who turned it why
Ctrl-C stops everything.
"""


def _say(text: str) -> None:
    log_console.print(lines(text), soft_wrap=True)
