"""What a cause acts on: a platform whose alerts are looked for and delivered while the cause lasts."""

import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from pipeline_platform.dead_letters.operations import Filter, discard
from pipeline_platform.event.types import TenantId
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.queue import accept_ids
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]
Ended = Generator[None]


@dataclass(slots=True)
class World:
    """A platform with two tenants, whose alerts are looked for and delivered while the cause lasts."""

    settings: Settings
    conn: Conn
    request: pytest.FixtureRequest
    restart: Callable[..., None]
    dead_url: str = ""

    @property
    def tenant(self) -> TenantId:
        return add_tenant(self.conn).tenant_id

    def accept(self, tenant: TenantId, events: int, **properties: Any) -> list[uuid.UUID]:
        ids = sorted(uuid.uuid4() for _ in range(events))
        accept_ids(self.conn, tenant, ids, **properties)
        return ids

    def deliver(self) -> None:
        drain(self.settings)

    def discard(self) -> None:
        discard(self.conn, Filter(), "a test")
