"""The manifest of a version of an hour, as JSON: what its file holds, how it was made, and what it replaces."""

from datetime import datetime

import msgspec

from pipeline_platform import stores
from pipeline_platform.errors import PipelineError


class TenantEvents(msgspec.Struct, frozen=True):
    """A tenant's part of the file. ids_sha256: of the event ids in ascending order, 16 bytes each."""

    tenant_id: int
    tenant: str
    events: int
    ids_sha256: str


class File(msgspec.Struct, frozen=True):
    """The Parquet file, beside the manifest of its version. name: relative to the directory of the hour."""

    name: str
    bytes: int
    sha256: str


class Code(msgspec.Struct, frozen=True):
    """The platform's version, and the versions of the transforms that were in use since the hour began."""

    platform: str
    transforms: list[str]


class Manifest(msgspec.Struct, frozen=True):
    """One version of an hour of received_at. replaces: the version before it, if there was one."""

    hour: datetime
    version: int
    exported_at: datetime
    replaces: int | None
    schema_version: int
    code: Code
    file: File
    events: int
    tenants: list[TenantEvents]


def publish(manifest: Manifest, version_address: str, hour_address: str) -> None:
    """Write the manifest beside its file, then name it as the hour's current one."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    for address in (f"{version_address}/manifest.json", f"{hour_address}/current.json"):
        stores.write_whole(address, text)


def read_current(hour_address: str) -> Manifest:
    """The current manifest of an hour. PipelineError if there is none or it is not one."""
    address = f"{hour_address}/current.json"
    try:
        return msgspec.json.decode(stores.read_whole(address), type=Manifest)
    except msgspec.MsgspecError as error:
        raise PipelineError(f"{address} is no manifest: {error}") from error
