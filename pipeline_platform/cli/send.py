"""send: sends a file through the gateway."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline_platform.cli.output import (
    AsJson,
    console,
    log_console,
    print_json,
    progress_bar,
    running_settings,
)
from pipeline_platform.cli.values import number
from pipeline_platform.errors import ConfigError

if TYPE_CHECKING:
    from pipeline_platform.imports.sender import SendResult


def register(app: typer.Typer) -> None:
    app.command()(send)


def send(
    file: Annotated[str, typer.Argument(help="NDJSON, plain or gzip; `-`: standard input.")],
    write_key: Annotated[str | None, typer.Option(help="Send everything as this tenant.")] = None,
    tenant_field: Annotated[
        str | None, typer.Option(help="Field with the tenant's name; tenants that are missing are added.")
    ] = None,
    rate: Annotated[float | None, number(0.1, 1_000_000, "Events a second; default: as fast as it goes.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=2_500, help="Events a request.")] = 100,
    gateway: Annotated[str | None, typer.Option(help="Another gateway's URL.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send a file of events through the gateway, as any client would; ends with what was acknowledged.

    Exit 1 if anything was rejected, refused or unreadable.

    Example: pipeline-platform send events.ndjson.gz --tenant-field tenant
    """
    from pipeline_platform.imports.sender import send_file
    from pipeline_platform.settings import Settings

    if (write_key is None) == (tenant_field is None):
        raise ConfigError("send needs one of --write-key and --tenant-field")
    target = gateway or _own_gateway(Settings.read().home)
    settings = running_settings() if tenant_field else Settings.read()
    with progress_bar() as bar:
        task = bar.add_task("acknowledged", total=None)
        result = send_file(
            settings,
            target.rstrip("/"),
            file,
            write_key=write_key,
            tenant_field=tenant_field,
            rate=rate,
            batch_events=batch,
            progress=lambda events: bar.advance(task, events),
        )
    _report(result, as_json=as_json)
    raise typer.Exit(0 if result.complete else 1)


def _own_gateway(home: Path) -> str:
    from pipeline_platform.local.services.endpoints import read_endpoints

    endpoints = read_endpoints(home)
    if endpoints is None:
        raise ConfigError("no gateway runs here: start one (pipeline-platform up), or name one with --gateway")
    return endpoints.gateway


def _report(result: "SendResult", *, as_json: bool) -> None:
    for sample in result.bad_line_samples:
        log_console.print(sample, style="yellow", highlight=False, markup=False)
    if result.damage:
        log_console.print(result.damage, style="red", soft_wrap=True)
    if as_json:
        print_json(asdict(result))
    else:
        console.print(
            f"acknowledged {result.acknowledged:,}: accepted {result.accepted:,}, rejected {result.rejected:,}; "
            f"refused {sum(result.refused.values()):,}, unreadable lines {result.bad_lines:,}",
            highlight=False,
        )
        for why, events in result.refused.items():
            console.print(f"  refused {events:,}: {why}", highlight=False, markup=False)
