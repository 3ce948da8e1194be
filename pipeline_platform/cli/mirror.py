"""mirror configure, show, key, acknowledge: configuration of the old pipeline, which gets a copy of every event."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline_platform.cli.output import AsJson, DryRun, console, database, print_json


def register(app: typer.Typer) -> None:
    mirror = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The old pipeline that gets every event.")
    mirror.command("configure")(configure)
    mirror.command("show")(show)
    mirror.command("key")(key)
    mirror.command("acknowledge")(acknowledge)
    app.add_typer(mirror, name="mirror")


def configure(
    file: Annotated[Path, typer.Argument(help="A TOML file; see docs/how-to/migrate-from-your-pipeline.md.")],
    dry_run: DryRun = False,
) -> None:
    """Configure where events are forwarded to, and which table has the old pipeline's output.

    Example: pipeline-platform mirror configure legacy.toml --dry-run
    """
    from pipeline_platform.migration.mirror.configure import configure as apply
    from pipeline_platform.migration.mirror.configure import read_file

    target = read_file(file)
    with database() as conn:
        looked = apply(conn, target, dry_run=dry_run)
    done = "would be" if dry_run else "is"
    forward, output = target.forward.url or "nobody", target.output.table or "legacy.events (the simulated pipeline's)"
    console.print(
        f"what is mirrored {done} sent to {forward}, and compared with {output}", highlight=False, markup=False
    )
    if looked:
        console.print(looked.text, highlight=False, markup=False)


def show(as_json: AsJson = False) -> None:
    """Show the configuration in force and the state of the mirror.

    Example: pipeline-platform mirror show
    """
    from pipeline_platform.migration.mirror.configure import shown

    with database() as conn:
        found = shown(conn)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        console.print(f"{name.replace('_', ' '):18} {value}", highlight=False, markup=False)


def key(
    tenant: Annotated[str, typer.Argument(help="The tenant's name here.")],
    write_key: Annotated[str, typer.Argument(help="The tenant's write key at the old pipeline.")],
) -> None:
    """Keep a tenant's write key for the old pipeline: its requests are authorized with it.

    Example: pipeline-platform mirror key acme LEGACY_WRITE_KEY
    """
    from pipeline_platform.migration.mirror.configure import keep_key
    from pipeline_platform.tenants.tenants import tenant_id_of

    with database() as conn:
        keep_key(conn, tenant_id_of(conn, tenant), write_key)
    console.print(f"requests of {tenant} to the old pipeline carry its key", highlight=False)


def acknowledge(
    reason: Annotated[str, typer.Option(help="Why the losses are no objection; goes into the audit log.")],
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's; else all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Acknowledge the events that did not reach the old pipeline, so that it can be switched off.

    The platform has delivered them. Only a turn back would have to recover them.

    Example: pipeline-platform mirror acknowledge --reason "the old gateway was down for an hour"
    """
    from pipeline_platform.migration.mirror.configure import acknowledge_losses
    from pipeline_platform.tenants.tenants import tenant_id_of

    with database() as conn:
        taken = acknowledge_losses(conn, reason, tenant_id_of(conn, tenant) if tenant else None)
    if as_json:
        print_json({"events": sum(taken.values()), "causes": taken})
        return
    console.print(f"acknowledged {sum(taken.values()):,} events that did not reach the old pipeline", highlight=False)
    for cause, events in taken.items():
        console.print(f"{events:,}  {cause}", highlight=False, markup=False)
