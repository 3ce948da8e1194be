"""up, down, env, migrate."""

import shlex
from typing import Annotated

import typer

from pipeline_platform.cli.output import console, running_settings
from pipeline_platform.settings import Settings


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(env)
    app.command()(migrate)


def up(
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once everything serves; stop it with `down`.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Worker processes.")] = None,
    gateway_port: Annotated[int | None, typer.Option(min=0, max=65535, help="0: any free port.")] = None,
    console_port: Annotated[int | None, typer.Option(min=0, max=65535, help="0: any free port.")] = None,
    dagster_port: Annotated[int | None, typer.Option(min=0, max=65535, help="0: any free port.")] = None,
    with_legacy: Annotated[
        bool, typer.Option("--with-legacy", help="Start a simulated old pipeline too, and mirror to it.")
    ] = False,
    dagster: Annotated[bool, typer.Option("--dagster/--no-dagster", help="Start the Dagster UI and daemon.")] = True,
) -> None:
    """Start everything, supervised: PostgreSQL, Redis, gateway, workers, console, Dagster. Ctrl-C stops all of it.

    Example: pipeline-platform up --detach
    """
    from pipeline_platform.local.supervisor import run
    from pipeline_platform.telemetry.logs import set_up_logging

    ports = {"gateway_port": gateway_port, "console_port": console_port, "dagster_port": dagster_port}
    given = {"workers": workers, **ports}
    settings = Settings.read().model_copy(update={name: value for name, value in given.items() if value is not None})
    set_up_logging(settings)
    raise typer.Exit(run.up(settings, detach=detach, dagster=dagster, legacy=with_legacy))


def down() -> None:
    """Stop the platform of this home and wait until all of it is gone.

    Example: pipeline-platform down
    """
    from pipeline_platform.local.supervisor import run

    raise typer.Exit(run.down(Settings.read()))


def env() -> None:
    """Print what the commands dagster and dg need to reach the running instance. It contains a password.

    Example: eval "$(pipeline-platform env)" && dagster run list
    """
    from pipeline_platform.local.supervisor.dagster import command_environment

    for name, value in command_environment(running_settings()).items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def migrate() -> None:
    """Bring the database to the schema of this version (`up` does it by itself).

    Example: PIPELINE_DATABASE_URL=postgresql://… pipeline-platform migrate
    """
    from pipeline_platform.schema import migrate as apply

    settings = Settings.read()
    applied = apply(settings.database_url or running_settings().database_url)
    for name in applied:
        console.print(f"applied {name}")
    if not applied:
        console.print("nothing to apply: the schema is up to date")
