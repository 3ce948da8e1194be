"""Writes control.audit_log: who did what and why. Code that changes something for an operator calls `note`.

The actor is the operating system user who runs the command, or Dagster; never the database role.
"""

import getpass
import os
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from pipeline_platform.db import queries

_SQL = queries("audit_log")


def actor() -> str:
    """The operating system user, or the user's number if it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def note(
    conn: psycopg.Connection[Any], action: str, reason: str, detail: Mapping[str, Any], *, by: str | None = None
) -> None:
    """Write one entry, in the transaction of the change. detail: becomes JSON. by: the actor; None: `actor()`."""
    conn.execute(_SQL["note"], {"actor": by or actor(), "action": action, "reason": reason, "detail": Jsonb(detail)})
