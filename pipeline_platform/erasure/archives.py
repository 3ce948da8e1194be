"""Empties events in archived hours: a new file is written and verified, the record names it, the old one is removed.

The outcomes of the events are changed first, with their true positions, so that an hour that is restored later can
still be recounted. If the process is killed at any point, the record names a verified file, and the next run of the
same erasure does the rest. A file that cannot be read or differs from the record is not rewritten: the erasure stops
and names it.
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
from pipeline_platform.erasure.outcomes import discard
from pipeline_platform.erasure.person import Person
from pipeline_platform.event.types import QueuedEvent
from pipeline_platform.kill_points import reach
from pipeline_platform.settings import Settings

_SQL = queries("erasure")
_ARCHIVE = queries("archive")

Conn = psycopg.Connection[Any]


def erase_archives(conn: Conn, settings: Settings, person: Person, erasure_id: int, before: datetime) -> Counter[str]:
    """Erase a person from every archived hour. Returns the number of changed rows, archived events and files."""
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
                # If the hour's batches are kept as well, its outcomes are changed already.
                if not row["is_kept"]:
                    changed.update(discard(conn, person, erasure_id, occurrences(found, batch)))
            chosen += found
        if chosen:
            place = row["address"].rpartition("-")[0]
            written = files.write(place, emptied(files.read(row["address"]), chosen), tenants)
            reach("erase.before_archive_note")
            conn.execute(_ARCHIVE["rewritten"], asdict(written) | {"hour": row["hour"]})
            reach("erase.after_archive_note")
            changed.update(archived=len(chosen), archive_files=1)
            row["address"] = written.address
        files.remove_others(row["address"])
    return changed
