"""Archives hours, once an hour and before retention; hours that could not be archived are named and kept.

With the setting archive_url empty it does nothing and says so. An operator acts when the check fails: the alert and the
metadata give the reason, and the hour is kept until its file is written and verified.
"""

from datetime import datetime
from typing import Any

import dagster as dg

from pipeline_platform.defs.hours import key_of
from pipeline_platform.defs.policies import OWNERS, PERSONAL_DATA
from pipeline_platform.defs.resources import Platform

ARCHIVED = dg.AssetKey("archived_hours")

ALL_ARCHIVED = dg.AssetCheckSpec(
    "all_archived",
    asset=ARCHIVED,
    description="Every hour past its retention is archived, where archives are kept; `failed` says why one is not.",
)


@dg.asset(
    key=ARCHIVED,
    deps=[dg.AssetKey("delivered_events")],
    description="Hours past their retention as Parquet files, each verified before the hour may be dropped.",
    group_name="retention",
    kinds={"parquet"},
    owners=OWNERS,
    tags=PERSONAL_DATA,
    code_version="1",
    check_specs=[ALL_ARCHIVED],
)
def archived_hours(platform: Platform) -> dg.MaterializeResult:  # pyright: ignore[reportMissingTypeArgument, reportUnknownParameterType]
    settings = platform.settings()
    done: list[tuple[datetime, int, int]] = []
    failed: dict[str, str] = {}
    if settings.archive_url:
        from pipeline_platform.archive.hours import archive_hours, due_hours

        with platform.connect() as conn:
            # Reading a busy hour may take longer than the statement time-out.
            conn.execute("SET statement_timeout = 0")
            for one in archive_hours(conn, settings, due_hours(conn, settings)):
                if one.error:
                    failed[key_of(one.hour)] = one.error
                else:
                    done.append((one.hour, one.events, one.bytes))
    metadata: dict[str, Any] = {
        "archive": settings.archive_url or "off",
        "hours": len(done),
        "events": sum(events for _, events, _ in done),
        "bytes": sum(size for *_, size in done),
        "failed": dg.MetadataValue.md("\n".join(f"* {hour}: {why}" for hour, why in failed.items()) or "none"),
    }
    return dg.MaterializeResult(
        metadata=metadata,
        check_results=[
            dg.AssetCheckResult(
                check_name=ALL_ARCHIVED.name, passed=not failed, metadata={"failed": dg.MetadataValue.json(failed)}
            )
        ],
    )
