"""tenant add, tenant list, key create, key list, key rotate, key revoke."""

from datetime import timedelta
from typing import Annotated

import typer

from pipeline_platform.cli.output import AsJson, console, database, print_json, print_rows
from pipeline_platform.cli.values import INT4_MAX, number
from pipeline_platform.tenants import tenants
from pipeline_platform.tenants.tenants import NewKey

Name = Annotated[str, typer.Argument(help="The tenant's name.")]


def register(app: typer.Typer) -> None:
    tenant = typer.Typer(no_args_is_help=True, help="Who may send.")
    tenant.command("add")(add)
    tenant.command("list")(list_tenants)
    app.add_typer(tenant, name="tenant")
    key = typer.Typer(no_args_is_help=True, help="Write keys: shown once, stored as a hash.")
    key.command("create")(create)
    key.command("list")(list_keys)
    key.command("rotate")(rotate)
    key.command("revoke")(revoke)
    app.add_typer(key, name="key")


def _show(made: NewKey, as_json: bool) -> None:
    if as_json:
        print_json({"tenant_id": made.tenant_id, "name": made.name, "write_key": made.write_key})
        return
    console.print(f"tenant {made.name} ({made.tenant_id}), key {made.key_id}, shown this once:", highlight=False)
    console.print(made.write_key, highlight=False)


def add(
    name: Name,
    plan: Annotated[str, typer.Option(help="Added to every event of the tenant.")] = "free",
    events_per_s: Annotated[
        int | None, typer.Option(min=1, max=INT4_MAX, help="Its quota; default: a setting.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a tenant and its first write key.

    Example: pipeline-platform tenant add acme --plan pro
    """
    with database() as conn:
        _show(tenants.add_tenant(conn, name, plan, events_per_s), as_json)


def list_tenants(as_json: AsJson = False) -> None:
    """All tenants.

    Example: pipeline-platform tenant list
    """
    with database() as conn:
        found = tenants.list_tenants(conn)
    if as_json:
        print_json({"tenants": found})
        return
    columns = ("tenant_id", "name", "plan", "events_per_s", "working_keys", "created_at")
    print_rows(found, columns, title="Tenants", empty="no tenants; add one: pipeline-platform tenant add NAME")


def create(
    name: Name, label: Annotated[str, typer.Option(help="What the key is for.")] = "", as_json: AsJson = False
) -> None:
    """One more write key for a tenant.

    Example: pipeline-platform key create acme --label website
    """
    with database() as conn:
        _show(tenants.create_key(conn, name, label), as_json)


def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None, as_json: AsJson = False
) -> None:
    """List write keys by id. The keys themselves are never shown.

    Example: pipeline-platform key list --tenant acme
    """
    with database() as conn:
        found = tenants.list_keys(conn, tenant)
    if as_json:
        print_json({"keys": found})
        return
    print_rows(found, ("key_id", "tenant", "label", "created_at", "revoked_at"), title="Write keys", empty="no keys")


def rotate(
    name: Name,
    grace_h: Annotated[float, number(0, 87_600, "Hours that the tenant's other keys still work.")] = 24.0,
    as_json: AsJson = False,
) -> None:
    """A new write key; the tenant's others stop working after the grace.

    Example: pipeline-platform key rotate acme --grace-h 48
    """
    with database() as conn:
        _show(tenants.rotate_key(conn, name, timedelta(hours=grace_h)), as_json)


def revoke(key_id: Annotated[int, typer.Argument(min=1, max=INT4_MAX, help="From `key list`.")]) -> None:
    """Stop a write key now.

    Example: pipeline-platform key revoke 3
    """
    with database() as conn:
        tenants.revoke_key(conn, key_id)
    console.print(f"key {key_id} is revoked; gateways notice within seconds", highlight=False)
