"""Keeps the identities of a table of the user's own stored while the mirror runs, so that its rows are shown soon.

Comparisons and recoveries store what is still missing before they read.
"""

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg

from pipeline_platform.db import connect
from pipeline_platform.errors import is_transient
from pipeline_platform.migration.identities import store_identities

_LOG = logging.getLogger(__name__)
_EVERY_S = 5.0
_WAIT_S = 60.0
_END_S = 2.0


@contextmanager
def keeping_identities(url: str) -> Generator[None]:
    """Store the identities of all rows, then of new ones every few seconds, in a thread."""
    stopping = threading.Event()
    # A daemon: a long pass over a large table does not delay the end of the process.
    thread = threading.Thread(target=_keep, args=(url, stopping), name="identities", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(_END_S)


def _keep(url: str, stopping: threading.Event) -> None:
    since: datetime | None = None
    while not stopping.is_set():
        try:
            with connect(url, "mirror identities", statement_timeout_s=0) as conn:
                while not stopping.is_set():
                    began = datetime.now(UTC)
                    if rows := store_identities(conn, since):
                        _LOG.info("stored the identities of %d rows of the old pipeline", rows)
                    since = began
                    stopping.wait(_EVERY_S)
        except psycopg.Error as error:
            _LOG.warning("identities of the old pipeline's rows cannot be stored, which is tried again: %s", error)
            stopping.wait(_EVERY_S if is_transient(error) else _WAIT_S)
