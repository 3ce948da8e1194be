"""Erases one person of one tenant: plan, tombstones, wait, erase, and look again until nothing is left.

The order makes it exact under load. The tombstones come first: from then on, everything that brings old events in
leaves out this person's. Then it waits for older transactions to end, since they may not have seen the tombstones. Then
it erases batch by batch, each in one transaction, with its work locked. Events that the person sends after `erased_at`
are accepted as usual.

If it is killed at any point, the account is exact, and the same command continues and finishes the erasure.
"""

import json
from collections.abc import Callable, Collection

from pipeline_platform.archive.hold import exclusively
from pipeline_platform.audit_log import actor, note
from pipeline_platform.db import connect, queries
from pipeline_platform.erasure.archives import erase_archives
from pipeline_platform.erasure.batches import erase_batch
from pipeline_platform.erasure.copies import erase_copies, erase_traits
from pipeline_platform.erasure.exports import erase_exports
from pipeline_platform.erasure.plan import Erasure, make_plan, one_row
from pipeline_platform.erasure.rows import erase_letters, erase_rows
from pipeline_platform.erasure.run import Run
from pipeline_platform.erasure.scan import Place
from pipeline_platform.errors import ConfigError
from pipeline_platform.kill_points import reach
from pipeline_platform.settings import Settings
from pipeline_platform.tenants.tenants import tenant_id_of

_SQL = queries("erasure")


def erase(
    settings: Settings,
    tenant: str,
    user_id: str,
    reason: str,
    progress: Callable[[str], None] = lambda _: None,
    *,
    also: Collection[str] = (),
) -> Erasure:
    """Erase a person. progress: called with the next step. also: other user ids of the same person.

    ConfigError if the reason, which is kept, names the person; PipelineError if a transaction or a writer does not end.
    """
    if any(name in reason for name in (user_id, *also)):
        raise ConfigError("the reason is kept, so it must not name the person: refer to the request instead")
    with connect(settings.database_url, "erase", statement_timeout_s=0, lock_timeout_s=60) as conn, exclusively(conn):
        tenant_id = tenant_id_of(conn, tenant)
        progress("looking for the person's events")
        erasure = make_plan(conn, tenant, tenant_id, user_id, also)
        _run(Run(settings, conn, erasure, progress), reason, also)
        return erasure


def _run(run: Run, reason: str, also: Collection[str]) -> None:
    _begin(run, reason)
    _bury_ids(run, also)
    _erase_queue(run)
    run.progress("archives")
    run.changed(erase_archives(run.conn, run.settings, run.person, run.erasure_id, run.before))
    erase_letters(run)
    erase_rows(run)
    erase_copies(run)
    erase_traits(run)
    erase_rows(run)
    erase_exports(run)
    _finish(run, reason)


def _begin(run: Run, reason: str) -> None:
    named = run.person.params() | {"user_id": run.person.user_id, "reason": reason, "actor": actor()}
    run.erasure.erasure_id, run.erasure.erased_at = one_row(run.conn, "begin", named)


def _bury_ids(run: Run, also: Collection[str]) -> None:
    """Write tombstones and look again, until no id is new.

    A transaction that brings old events in may have committed an id without a tombstone.
    """
    erasure = run.erasure
    buried: frozenset[str] | None = None
    while buried is None or not run.person.anonymous <= buried:
        buried = run.person.anonymous
        run.conn.execute(_SQL["bury_ids"], run.params)
        reach("erase.after_tombstones")
        run.wait_for_older()
        again = make_plan(run.conn, erasure.tenant, run.person.tenant_id, run.person.user_id, also, run.before)
        erasure.person, erasure.found, erasure.by_id = again.person, again.found, again.by_id


def _erase_queue(run: Run) -> None:
    places: list[Place] = [(row[0], row[1]) for row in run.conn.execute(_SQL["marked_batches"], run.params)]
    for number, place in enumerate(places):
        run.progress(f"batch {number + 1} of {len(places)}")
        run.changed(erase_batch(run.conn, run.person, run.erasure_id, place))
        reach("erase.after_batch")


def _finish(run: Run, reason: str) -> None:
    erasure = run.erasure
    erasure.outcomes = dict(run.conn.execute(_SQL["totals"], run.params).fetchall())
    (own_table,) = one_row(run.conn, "own_table", {})
    if own_table:
        erasure.not_ours.append(f"{own_table}: the old pipeline's own table")
    if one_row(run.conn, "is_mirrored", {})[0]:
        erasure.not_ours.append("what the old pipeline has under way: erase again when it has processed that")
    counts = erasure.counts()
    detail = {"erasure_id": erasure.erasure_id, "tenant": erasure.tenant, "subject_hash": erasure.subject_hash}
    with run.conn.transaction():
        run.conn.execute(_SQL["finish"], run.params | {"counts": json.dumps(counts)})
        note(run.conn, "erase", reason, detail | counts)
