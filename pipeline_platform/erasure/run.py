"""A running erasure: what every step of it needs, and the wait for older transactions."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import psycopg

from pipeline_platform.db import queries
from pipeline_platform.erasure.person import Person
from pipeline_platform.erasure.plan import Erasure, one_row
from pipeline_platform.errors import PipelineError
from pipeline_platform.settings import Settings

_SQL = queries("erasure")
# The longest writing statements of this platform end within a minute; an audit or a report may read for longer.
_OLDER_S_MAX = 600.0
_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Run:
    """One run on one connection, which holds the erasure's lock. It has begun: its id and time are known.

    progress: called with the next step.
    """

    settings: Settings
    conn: psycopg.Connection[Any]
    erasure: Erasure
    progress: Callable[[str], None]

    @property
    def person(self) -> Person:
        return self.erasure.person

    @property
    def erasure_id(self) -> int:
        return cast("int", self.erasure.erasure_id)

    @property
    def before(self) -> datetime:
        """Only events received before this time are erased."""
        return cast("datetime", self.erasure.erased_at)

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the queries of erasure.sql."""
        return self.person.params() | {"before": self.before, "erasure_id": self.erasure_id}

    def marked(self, source: str) -> list[int]:
        """The ids of the rows that the scan found in this place."""
        return [row[0] for row in self.conn.execute(_SQL["marked_ids"], self.params | {"source": source})]

    def changed(self, rows: Counter[str]) -> None:
        """Count changed rows, by table."""
        self.erasure.changed.update(rows)

    def wait_for_older(self) -> None:
        """Wait until every transaction of the platform that runs now has ended. PipelineError if one does not."""
        (now,) = one_row(self.conn, "now", {})
        deadline = time.monotonic() + _OLDER_S_MAX
        while older := self.conn.execute(_SQL["older_transactions"], {"before": now}).fetchall():
            names = ", ".join(f"{who} since {since:%H:%M:%S}" for who, since in older)
            self.progress(f"waiting for {names}")
            if time.monotonic() > deadline:
                raise PipelineError(f"still running: {names}. Let it end or stop it, then erase again")
            time.sleep(_PAUSE_S)
