"""The versions of exported hours: written and published, verified, listed and removed."""

import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipeline_platform import stores
from pipeline_platform.analytics.export import rows_of_hour
from pipeline_platform.analytics.formats import Row
from pipeline_platform.archive.hold import exclusively
from pipeline_platform.db import queries
from pipeline_platform.errors import PipelineError
from pipeline_platform.kill_points import reach
from pipeline_platform.settings import Settings
from pipeline_platform.warehouse import files, manifest
from pipeline_platform.warehouse.content import Content, one_snapshot, read_content, require_equal, row_of
from pipeline_platform.warehouse.files import Tenant

_SQL = queries("warehouse")
_FILE = "events.parquet"
# Readers that began with a version may finish with it.
_GRACE = timedelta(hours=24)

Conn = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Exported:
    """An hour after its export. version: None if nothing was ever received in it, so that it has no file.

    is_new: whether this version was written now; else its file was read back and found unchanged. error: why it could
    not be exported.
    """

    hour: datetime
    version: int | None = None
    address: str = ""
    events: int = 0
    bytes: int = 0
    tenants: int = 0
    is_new: bool = False
    error: str | None = None


def write_version(conn: Conn, settings: Settings, hour: datetime, current: Mapping[str, Any] | None) -> Exported | None:
    """Write and publish the next version; None if rows of the hour were being changed.

    If its file is the one of the current version, that stays: the rows were counted again and are what they were.
    """
    hour_address = f"{stores.root(settings.warehouse_url)}/{hour:%Y/%m/%d/%H}"
    taken = row_of(conn, "begin", hour, hour_address=hour_address)
    assert taken
    version, address = taken["version"], taken["address"]
    try:
        written = _write_file(conn, hour, address)
    except PipelineError:
        # Nobody has seen it, and the next attempt writes another. If the address cannot be used, the error says so.
        with suppress(PipelineError):
            _remove(conn, hour, version, address)
        raise
    if written is None:
        _remove(conn, hour, version, address)
        return None
    content, size, sha256 = written
    if current and current["sha256"] == sha256 and (kept := verified(current)):
        _remove(conn, hour, version, address)
        conn.execute(_SQL["unchanged"], {"hour": hour, "version": kept.version, "refreshes": content.refreshes})
        return kept
    replaces = current["version"] if current else None
    made = _manifest(hour, taken, replaces, content, manifest.File(f"v{version}/{_FILE}", size, sha256))
    manifest.publish(made, address, hour_address)
    reach("export.after_current")
    named = {"hour": hour, "version": version, "file": _FILE, "events": made.events}
    conn.execute(_SQL["publish"], named | {"bytes": size, "sha256": sha256, "refreshes": content.refreshes})
    return Exported(hour, version, address, made.events, size, len(made.tenants), is_new=True)


def _write_file(conn: Conn, hour: datetime, address: str) -> tuple[Content, int, str] | None:
    """Write the file of a version and compare it; its content, size and SHA-256. None if rows were being changed."""
    file = f"{address}/{_FILE}"
    # A database that was restored from a backup may give a number for the second time.
    stores.remove(address)
    with one_snapshot(conn):
        content = read_content(conn, hour)
        if content is None:
            return None
        files.write(file, _portions(conn, hour, content.tenants.values()))
    reach("export.after_file")
    require_equal(files.tallies(file), content, hour)
    return content, *stores.weigh(file)


def verified(current: Mapping[str, Any]) -> Exported | None:
    """The current version, if its files are what was exported."""
    try:
        verify(current)
    except PipelineError:
        # It is written anew. If the address cannot be used, that fails with the reason.
        return None
    tenants = len(manifest.read_current(current["address"].rpartition("/")[0]).tenants)
    return Exported(
        current["hour"], current["version"], current["address"], current["events"], current["bytes"], tenants
    )


def verify(row: Mapping[str, Any]) -> None:
    """PipelineError if the file of a published version differs from its record, or its manifest does."""
    address = f"{row['address']}/{row['file']}"
    if stores.weigh(address) != (row["bytes"], row["sha256"]):
        raise PipelineError(f"{address} is not the file that was exported: it was changed, or is damaged")
    current = manifest.read_current(row["address"].rpartition("/")[0])
    if (current.version, current.file.sha256) != (row["version"], row["sha256"]):
        raise PipelineError(f"{row['address']}: current.json of its hour names version {current.version}")


def list_versions(conn: Conn, hour: datetime | None = None) -> list[dict[str, Any]]:
    """The versions of all hours, or of one hour, whose files are there."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL["list"], {"hour": hour}).fetchall()


def remove_replaced(conn: Conn, settings: Settings) -> int:
    """Remove the files of replaced versions, of hours that a killed export left, and of hours past retention.

    The former two are removed a day later, or at once after an erasure. Returns the number of removed versions.
    """
    with exclusively(conn):
        gone = conn.execute(_SQL["superseded"], {"grace": _GRACE}).fetchall()
        for hour, version, address in gone:
            _remove(conn, hour, version, address)
        expired = conn.execute(_SQL["expired"], {"days": settings.warehouse_days, "grace": _GRACE}).fetchall()
        for hour, version, address in expired:
            # The hour's directory, which also names its current version.
            _remove(conn, hour, version, address.rpartition("/")[0])
    return len(gone) + len(expired)


def _remove(conn: Conn, hour: datetime, version: int, address: str) -> None:
    stores.remove(address)
    conn.execute(_SQL["removed"], {"hour": hour, "version": version})


def _portions(conn: Conn, hour: datetime, tenants: Iterable[Tenant]) -> Iterator[tuple[Tenant, list[Row]]]:
    for tenant in tenants:
        for rows in rows_of_hour(conn, tenant.tenant_id, hour, files.GROUP_EVENTS):
            yield tenant, rows


def _manifest(
    hour: datetime, taken: Mapping[str, Any], replaces: int | None, content: Content, file: manifest.File
) -> manifest.Manifest:
    tenants = [
        manifest.TenantEvents(tenant_id, content.tenants[tenant_id].name, tally.events, tally.ids_sha256)
        for tenant_id, tally in content.tallies.items()
    ]
    return manifest.Manifest(
        hour=hour,
        version=taken["version"],
        exported_at=taken["begun_at"],
        replaces=replaces,
        schema_version=files.SCHEMA_VERSION,
        code=manifest.Code(importlib.metadata.version("pipeline-platform"), list(content.transforms)),
        file=file,
        events=sum(tenant.events for tenant in tenants),
        tenants=tenants,
    )
