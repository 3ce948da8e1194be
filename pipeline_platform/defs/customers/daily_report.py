"""daily_report: what was received, delivered and lost on a day, by tenant; a page under PIPELINE_HOME/reports.

To count a day again, materialize it again: a later replay or redrive changes the outcomes of its events. An operator
acts when the check fails: `pipeline-platform audit` names the lost events.
"""

from datetime import date, timedelta
from typing import Any

import dagster as dg

from pipeline_platform.defs import automation
from pipeline_platform.defs.events.processing import DELIVERED
from pipeline_platform.defs.hours import START
from pipeline_platform.defs.policies import OWNED, OWNERS, RETRY
from pipeline_platform.defs.resources import Platform
from pipeline_platform.defs.tables import tenant_table
from pipeline_platform.local.services.endpoints import read_endpoints
from pipeline_platform.settings import Settings
from pipeline_platform.watch.reports.daily import Daily, Tenant, count_day

DAYS = dg.DailyPartitionsDefinition(start_date=START, timezone="UTC")
DAILY_REPORT = dg.AssetKey("daily_report")
_COLUMNS = ("received", "delivered", "rejected", "dead_lettered", "lost")
_TENANTS_NAMED = 10

NOTHING_LOST = dg.AssetCheckSpec(
    "nothing_lost",
    asset=DAILY_REPORT,
    description="Every accepted event of the day is delivered, a duplicate, a dead letter, discarded or in flight, and "
    "every delivered one has its row. Names the tenants where not.",
)


@dg.asset(
    key=DAILY_REPORT,
    deps=[DELIVERED],
    partitions_def=DAYS,
    group_name="customers",
    kinds={"html"},
    owners=OWNERS,
    code_version="1",
    description="What was received, delivered and lost on a day of received_at, by tenant; as one self-contained "
    "page: at the console, and under reports/ in PIPELINE_HOME or PIPELINE_FILES_URL.",
    check_specs=[NOTHING_LOST],
    # Its schedule runs once a day.
    freshness_policy=dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=30), fail_window=timedelta(hours=54)),
    retry_policy=RETRY,
)
def daily_report(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:  # pyright: ignore[reportMissingTypeArgument, reportUnknownParameterType]
    # Imported here: plotly takes a moment to import, which would delay the loading of definitions.
    from pipeline_platform.watch.reports.daily_page import page_address, write_daily

    with platform.connect() as conn:
        found = count_day(conn, date.fromisoformat(context.partition_key))
    address = page_address(platform.settings(), found)
    write_daily(found, address)
    losing = [tenant for tenant in found.tenants if tenant.lost]
    return dg.MaterializeResult(
        metadata=_described(found) | _page(platform.settings(), address),
        check_results=[
            dg.AssetCheckResult(
                check_name=NOTHING_LOST.name,
                passed=not losing,
                metadata={
                    "lost": found.lost,
                    "tenants": dg.MetadataValue.json({tenant.name: tenant.lost for tenant in losing}),
                },
            )
        ],
    )


def _described(found: Daily) -> dict[str, Any]:
    tenants = [tenant.to_json() for tenant in found.tenants]
    rate = found.numbers.delivery_rate
    return {
        "result": _result(found),
        **found.numbers.totals(),
        "replayed": found.replayed,
        "lost": found.lost,
        "extra": found.extra,
        **({} if rate is None else {"delivery_rate": rate}),
        "tenants": len(tenants),
        "is_final": found.is_final,
        "summary": dg.MetadataValue.md(_summary(found)),
        "by_tenant": tenant_table(tenants, _COLUMNS),
    }


def _result(found: Daily) -> str:
    numbers = found.numbers
    replayed = f"; replays processed {found.replayed:,} again" if found.replayed else ""
    return (
        f"{numbers.received:,} received, {numbers.delivered:,} delivered, {found.lost:,} lost{replayed}"
        f"{'' if found.is_final else '; not final yet'}."
    )


def _page(settings: Settings, address: str) -> dict[str, Any]:
    """Where the page is: at the console, if it runs, and its file. Browsers refuse links to files."""
    running = read_endpoints(settings.home)
    file = {"file": dg.MetadataValue.text(address)}
    if not (running and running.console):
        return file
    return {"page": dg.MetadataValue.url(f"{running.console}/reports/{address.rpartition('/')[2]}")} | file


def _summary(found: Daily) -> str:
    lines = [
        *(f"* {cause.events:,} {cause.outcome}: `{cause.cause}`" for cause in found.causes),
    ]
    losing: list[Tenant] = sorted((each for each in found.tenants if each.lost), key=lambda each: -each.lost)
    lines += [f"* **{tenant.name} lost {tenant.lost:,}**" for tenant in losing[:_TENANTS_NAMED]]
    return "\n".join(lines) or "Every accepted event was delivered."


daily_report_job = dg.define_asset_job(  # pyright: ignore[reportUnknownMemberType]
    "daily_report_job",
    selection=dg.AssetSelection.assets(DAILY_REPORT),
    description="Counts a day and writes its page. The schedule does it every day.",
    executor_def=dg.in_process_executor,
    metadata=OWNED,
)

daily_report_schedule = dg.build_schedule_from_partitioned_job(  # pyright: ignore[reportUnknownMemberType]
    daily_report_job,
    name="daily_report_at_night",
    # By then the day's last hour is sealed and finished.
    hour_of_day=0,
    minute_of_hour=40,
    default_status=automation.SCHEDULES,
    description="The report of the day before.",
    metadata=OWNED,
)
