"""The check that both equations of the account hold for an hour, and that a recount of the rows agrees.

    received = accepted + rejected
    accepted = delivered + duplicate + dead_lettered + discarded + in_flight

Do not repeat a failed check until it passes: look at the hour in `pipeline-platform audit`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import dagster as dg
import psycopg

from pipeline_platform.account.audit import Difference, audit_hour, production_of_hour
from pipeline_platform.account.numbers import total
from pipeline_platform.db import queries
from pipeline_platform.defs.hours import key_of
from pipeline_platform.defs.verdicts import hour_verdict, last_verdict, red_hours

_SQL = queries("control_plane")

ACCOUNT_HOLDS = dg.AssetCheckSpec(
    "account_holds",
    asset="delivered_events",
    description="received = accepted + rejected and accepted = delivered + duplicate + dead_lettered + discarded + "
    "in_flight, for every tenant and lane of the hour; counters and rows say the same, event by event; and production "
    "has as many rows of each tenant as the account delivered.",
)

_DIFFERENCES_SHOWN = 20
_COLUMNS = ("kind", "tenant", "lane", "number", "counted", "recounted", "events")


def check_hour(conn: psycopg.Connection[Any], hour: datetime) -> dg.AssetCheckEvaluation:
    """The verdict on one hour. If its batches were dropped, only the counters and the number of its rows count."""
    audited = audit_hour(conn, hour)
    # Read afterwards: retention may have dropped the hour meanwhile.
    dropped = _dropped(conn, hour)
    # A recount that differs names the events. Otherwise production is counted without the data that the recount uses.
    differences = [] if dropped else audited.differences
    differences = differences or production_of_hour(conn, hour)
    parts = audited.counted.values()
    unbalanced = sum(not part.balanced for part in parts)
    numbers = total(parts).totals()
    return hour_verdict(
        ACCOUNT_HOLDS,
        key_of(hour),
        passed=not unbalanced and not differences,
        said=_said(numbers, unbalanced, differences),
        metadata={
            **numbers,
            "unbalanced": unbalanced,
            "differences": len(differences),
            "recounted": not dropped,
            **({"first_differences": _table(differences)} if differences else {}),
        },
    )


def conclude(
    instance: dg.DagsterInstance, verdicts: Sequence[dg.AssetCheckEvaluation], hours: int
) -> Iterator[dg.AssetCheckResult]:
    """The verdict on all hours, then Failure if one of this run is wrong."""
    yield last_verdict(ACCOUNT_HOLDS, red_hours(instance, ACCOUNT_HOLDS, verdicts), hours)
    wrong = [found.partition for found in verdicts if not found.passed]
    if wrong:
        raise dg.Failure(
            f"the account does not hold for {', '.join(map(str, wrong))}: run `pipeline-platform audit` and look at "
            "what differs. Every hour is recorded all the same",
            allow_retries=False,
        )


def _said(numbers: Mapping[str, int], unbalanced: int, differences: Sequence[Difference]) -> str:
    """One sentence on the verdict."""
    if not unbalanced and not differences:
        return (
            f"the account holds: {numbers['received']:,} received, {numbers['delivered']:,} delivered, "
            f"{numbers['duplicate']:,} duplicate, {numbers['dead_lettered']:,} dead-lettered"
        )
    first = differences[0] if differences else None
    example = (
        f"; first: {first.kind} of {first.tenant}, {first.number} counted {first.counted}, recounted {first.recounted}"
        if first
        else ""
    )
    return f"the account does not hold: {unbalanced} parts unbalanced, {len(differences)} differences{example}"


def _dropped(conn: psycopg.Connection[Any], hour: datetime) -> bool:
    row = conn.execute(_SQL["hour_state"], {"hour": hour}).fetchone()
    return row is not None and row[2] is not None


def _table(differences: Sequence[Difference]) -> dg.TableMetadataValue:
    rows = [asdict(difference) for difference in differences[:_DIFFERENCES_SHOWN]]
    return dg.MetadataValue.table(
        [dg.TableRecord({name: row[name] for name in _COLUMNS}) for row in rows],
        dg.TableSchema([dg.TableColumn(name) for name in _COLUMNS]),
    )
