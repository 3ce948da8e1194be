"""Empties events in archived hours: a new file is written and verified, the ledger names it, the old one goes.

What became of them is settled first, with their true places, so that an hour that is taken back later can still be
recounted. Killed at any place, the ledger names a file that was verified, and the next run of the same erasure does the
rest. A file that cannot be used, or is not what was archived, stops the erasure with its name: it is never rewritten.
"""

from collections import Counter
from dataclasses import asdict
from datetime import datetime
from typing import Any

import psycopg

from pipeline_platform.archive import files
from pipeline_platform.archive.hours import check, list_archives, root_of
from pipeline_platform.db import queries
from pipeline_platform.erasure.batches import emptied, occurrences, theirs
from pipeline_platform.erasure.outcomes import settle
from pipeline_platform.erasure.person import Person
from pipeline_platform.event.types import QueuedEvent
from pipeline_platform.kill_points import reach
from pipeline_platform.settings import Settings

_SQL = queries("erasure")
_ARCHIVE = queries("archive")

Conn = psycopg.Connection[Any]


def erase_archives(conn: Conn, settings: Settings, person: Person, erasure_id: int, before: datetime) -> Counter[str]:
    """Erase a person from every archived hour. Returns how many rows, archived events and files were changed."""
    if settings.archive_url:
        files.remove_unfinished(root_of(settings))
    tenants = dict(conn.execute(_ARCHIVE["tenant_names"]).fetchall())
    changed: Counter[str] = Counter()
    for row in list_archives(conn):
        if row["hour"] >= before:
            continue
        check(row)
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
            place = row["address"].rpartition("-")[0]
            written = files.write(place, emptied(files.read(row["address"]), chosen), tenants)
            reach("erase.before_archive_ledger")
            conn.execute(_ARCHIVE["rewritten"], asdict(written) | {"hour": row["hour"]})
            reach("erase.after_archive_ledger")
            changed.update(archived=len(chosen), archive_files=1)
            row["address"] = written.address
        files.remove_others(row["address"])
    return changed
