"""status, doctor."""

from dataclasses import asdict
from typing import Any

import typer

from pipeline_platform.cli.output import AsJson, console, print_json, print_rows, running_settings
from pipeline_platform.local.services.endpoints import read_endpoints
from pipeline_platform.settings import Settings
from pipeline_platform.watch.doctor import diagnose
from pipeline_platform.watch.health import status_of


def register(app: typer.Typer) -> None:
    app.command()(status)
    app.command()(doctor)


def status(as_json: AsJson = False) -> None:
    """Show which processes answer and what waits. Exit 1 if a process that should answer does not.

    Example: pipeline-platform status
    """
    settings = running_settings()
    found = status_of(settings, read_endpoints(settings.home))
    if as_json:
        print_json(found)
    else:
        for name, answer in found["services"].items():
            said = {True: "answers", False: "DOES NOT ANSWER", None: "not started here"}[answer]
            console.print(f"{name:14} {said}", highlight=False)
        for part in ("queue", "hours", "dead_letters"):
            numbers = "  ".join(f"{name.replace('_', ' ')} {value}" for name, value in found.get(part, {}).items())
            console.print(f"{part.replace('_', ' '):14} {numbers}", highlight=False)
        _print_circuit(found.get("circuit"))
        for alert in found.get("alerts", []):
            console.print(
                f"alert          {alert['message']} ({alert['occurrences']} times)", highlight=False, markup=False
            )
    raise typer.Exit(0 if found["healthy"] else 1)


def _print_circuit(circuit: dict[str, Any] | None) -> None:
    if circuit is None:
        return
    said = "closed: events are processed"
    if circuit["is_open"]:
        said = f"OPEN since {circuit['opened_at']:%Y-%m-%d %H:%M:%S}, {circuit['waiting']:,} events wait"
    console.print(f"{'circuit':14} {said}", highlight=False)


def doctor(as_json: AsJson = False) -> None:
    """Check for common faults and give a remedy for each. Exit 1 if there is one.

    Example: pipeline-platform doctor
    """
    findings = diagnose(Settings.read())
    well = all(finding.well for finding in findings)
    if as_json:
        print_json({"well": well, "findings": [asdict(finding) for finding in findings]})
    else:
        rows = [
            {"check": each.check, "": "ok" if each.well else "NOT WELL", "found": each.found,
             "remedy": "" if each.well else each.remedy}
            for each in findings
        ]  # fmt: skip
        print_rows(rows, ("check", "", "found", "remedy"), title="Doctor", empty="nothing was checked")
    raise typer.Exit(0 if well else 1)
