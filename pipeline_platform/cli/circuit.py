"""circuit status, close."""

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline_platform.cli.output import AsJson, console, database, print_json
from pipeline_platform.dead_letters.circuit_switch import circuit_state, close_circuit
from pipeline_platform.errors import ConfigError


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Stops all workers when most events would become dead letters.")
    group.command("status")(status)
    group.command("close")(close)
    app.add_typer(group, name="circuit")


def status(as_json: AsJson = False) -> None:
    """Whether the circuit is open, and why; exit 1 if it is.

    Example: pipeline-platform circuit status
    """
    with database() as conn:
        found = circuit_state(conn)
    if as_json:
        print_json(asdict(found))
    elif found.is_open:
        console.print(f"open since {found.opened_at:%Y-%m-%d %H:%M:%S}: {found.message}", highlight=False, markup=False)
        console.print(f"{found.waiting:,} events wait", highlight=False)
    else:
        console.print("closed: events are processed", highlight=False)
    raise typer.Exit(1 if found.is_open else 0)


def close(reason: Annotated[str, typer.Option(help="What was corrected; goes into the audit log.")] = "") -> None:
    """Let the workers continue after the cause was corrected. The circuit opens again if it was not.

    Example: pipeline-platform circuit close --reason "transform rolled back"
    """
    if not reason:
        raise ConfigError("say what was corrected with --reason")
    with database() as conn:
        close_circuit(conn, reason)
