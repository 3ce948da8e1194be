"""Writes control.audit_log: who did what and why. Whatever changes something for an operator calls `note`.

The actor is the user of the operating system who runs the command, or Dagster; never the role of the database.
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
    """The user of the operating system; of one without a name its number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def note(
    conn: psycopg.Connection[Any], action: str, reason: str, detail: Mapping[str, Any], *, by: str | None = None
) -> None:
    """One entry, in the transaction of what was done. detail: becomes JSON. by: the actor; None: `actor()`."""
    conn.execute(_SQL["note"], {"actor": by or actor(), "action": action, "reason": reason, "detail": Jsonb(detail)})
