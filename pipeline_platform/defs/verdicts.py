"""Verdicts of checks over hours: each names its hour, and the last of a run names every hour that is still red.

The asset page shows the newest verdict of a check. A run over other hours would turn it green while an hour is red, so
the verdict at the end of each run passes only if no hour is.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from pipeline_platform.defs.private_dagster import red_partitions

_HOURS_NAMED = 20


def hour_verdict(
    spec: dg.AssetCheckSpec, partition: str, *, passed: bool, said: str, metadata: Mapping[str, Any],
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetCheckEvaluation:  # fmt: skip
    """The verdict on one hour. said: a sentence without the hour."""
    return dg.AssetCheckEvaluation(
        asset_key=spec.asset_key,
        check_name=spec.name,
        passed=passed,
        partition=partition,
        severity=severity,
        description=f"{partition}: {said}",
        metadata=metadata,
    )


def red_hours(
    instance: dg.DagsterInstance, spec: dg.AssetCheckSpec, verdicts: Iterable[dg.AssetCheckEvaluation]
) -> list[str]:
    """Every hour whose newest verdict failed, those of this run included."""
    found = set(red_partitions(instance, spec.key))
    for verdict in verdicts:
        if verdict.partition:
            (found.discard if verdict.passed else found.add)(verdict.partition)
    return sorted(found)


def last_verdict(
    spec: dg.AssetCheckSpec, red: list[str], hours: int, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
) -> dg.AssetCheckResult:
    """The verdict at the end of a run over `hours` hours: passed only if no hour at all is red."""
    named = ", ".join(red[:_HOURS_NAMED]) + (f" and {len(red) - _HOURS_NAMED} more" if len(red) > _HOURS_NAMED else "")
    said = (
        f"Wrong in {len(red)} hours, until a run finds them right: {named}"
        if red
        else f"Right in every hour that was judged; this run judged {hours:,}"
    )
    return dg.AssetCheckResult(
        asset_key=spec.asset_key,
        check_name=spec.name,
        passed=not red,
        severity=severity,
        description=said,
        metadata={"hours": hours, "wrong_hours": dg.MetadataValue.json(red)},
    )


def last_evaluation(spec: dg.AssetCheckSpec, red: list[str], hours: int) -> dg.AssetCheckEvaluation:
    """The same from a job of ops, which has no outputs for checks."""
    found = last_verdict(spec, red, hours)
    return dg.AssetCheckEvaluation(
        asset_key=spec.asset_key,
        check_name=spec.name,
        passed=found.passed,
        severity=found.severity,
        description=found.description,
        metadata=found.metadata,
    )
