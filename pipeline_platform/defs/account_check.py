"""The check that both lines of the account hold for an hour, and that the rows themselves say the same.

    received = accepted + rejected
    accepted = delivered + duplicate + dead_lettered + discarded + in_flight

A failed check is never rerun until it passes: an operator looks at `pipeline-platform audit` for the hour.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import dagster as dg
import psycopg

from pipeline_platform.defs.hours import key_of

ACCOUNT_HOLDS = dg.AssetCheckSpec(
    "account_holds",
    asset="delivered_events",
    description="received = accepted + rejected and accepted = delivered + duplicate + dead_lettered + "
    "discarded + in_flight, for every tenant and lane of the hour; and counters and rows say "
    "the same.",
)


def check_hour(conn: psycopg.Connection[Any], hour: datetime) -> dg.AssetCheckEvaluation:
    """The verdict on one hour."""
    wrong: list[str] = []
    row = conn.execute(
        "SELECT coalesce(sum(received-accepted-rejected),0)::bigint, coalesce(sum(accepted-delivered-duplicate-dead_lettered-discarded-in_flight),0)::bigint FROM account.funnel WHERE hour=%s",
        (hour,),
    ).fetchone()
    if row and any(row):
        wrong.append(str(row))
    return _evaluation(not wrong, {"wrong": dg.MetadataValue.json(wrong)}, key_of(hour))


def conclude(verdicts: Sequence[dg.AssetCheckEvaluation]) -> Iterator[dg.AssetCheckResult]:
    """The verdict on all hours of a run, then Failure where one failed: later passes would cover it up."""
    wrong = [found.partition for found in verdicts if not found.passed]
    yield dg.AssetCheckResult(
        asset_key=ACCOUNT_HOLDS.asset_key,
        check_name=ACCOUNT_HOLDS.name,
        passed=not wrong,
        metadata={"hours": len(verdicts), "wrong": dg.MetadataValue.json(wrong)},
    )
    if wrong:
        raise dg.Failure(
            f"the account does not hold for {', '.join(map(str, wrong))}: run `pipeline-platform audit` and "
            "look at what differs. Every hour is recorded all the same",
            allow_retries=False,
        )


def _evaluation(passed: bool, metadata: dict[str, Any], partition: str | None) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=ACCOUNT_HOLDS.asset_key,
        check_name=ACCOUNT_HOLDS.name,
        passed=passed,
        metadata=metadata,
        severity=dg.AssetCheckSeverity.ERROR,
        partition=partition,
    )
