"""Empties events in archived hours: the file is written anew, verified, and put in the place of the old one.

What became of them is settled first, with their true places, so that an hour that is taken back later can still be
recounted. A file that cannot be read or written stops the erasure with its name: run it again when it can.
"""

from collections import Counter
from datetime import datetime
from typing import Any

import psycopg

from pipeline_platform.archive import files
from pipeline_platform.archive.hours import list_archives
from pipeline_platform.db import queries
from pipeline_platform.erasure.batches import emptied, occurrences, theirs
from pipeline_platform.erasure.person import Person
from pipeline_platform.erasure.settle import settle
from pipeline_platform.event import QueuedEvent

_SQL = queries("erasure")
_ARCHIVE = queries("archive")

Conn = psycopg.Connection[Any]


def erase_archives(conn: Conn, person: Person, erasure_id: int, before: datetime) -> Counter[str]:
    """Erase a person from every archived hour. Returns how many rows, archived events and files were changed."""
    tenants = dict(conn.execute(_ARCHIVE["tenant_names"]).fetchall())
    changed: Counter[str] = Counter()
    for row in list_archives(conn):
        if row["hour"] >= before:
            continue
        chosen: list[QueuedEvent] = []
        for batch in files.batches(files.read_tenant(row["address"], person.tenant_id)):
            found = [event for event in theirs(batch, person) if event.payload]
            with conn.transaction():
                conn.execute(_SQL["enter"])
                # Of an hour that is kept as well, all is settled already.
                if not row["is_kept"]:
                    changed.update(settle(conn, person, erasure_id, occurrences(found, batch)))
            chosen += found
        if chosen:
            written = files.write(row["address"], emptied(files.read(row["address"]), chosen), tenants)
            facts = {"hour": row["hour"], "bytes": written.bytes, "sha256": written.sha256}
            conn.execute(_ARCHIVE["rewritten"], facts)
            changed.update(archived=len(chosen), archive_files=1)
    return changed
