"""dead_letters: events that could not be written, by tenant and cause; redrive_job tries them again.

An operator looks at the asset, corrects the cause, and launches the job. It is a dry run unless its config says
otherwise. Errors are not shown here, because Dagster stores metadata and an error may quote an event:
`pipeline-platform dead-letters` shows them.
"""

from typing import Any

import dagster as dg
from pydantic import Field

from pipeline_platform.dead_letters.operations import Filter, count_open, redrive
from pipeline_platform.defs.launchpad import prefilled, require_reason
from pipeline_platform.defs.policies import OWNED, OWNERS, PERSONAL_DATA, in_plain_words
from pipeline_platform.defs.resources import Platform
from pipeline_platform.defs.summaries import look_further, markdown_table
from pipeline_platform.settings import Settings
from pipeline_platform.tenants.tenants import tenant_ids_of

DEAD_LETTERS = dg.AssetKey("dead_letters")
_ROWS_SHOWN = 20
_COLUMNS = ["tenant", "failed_in", "error_class", "fingerprint", "events"]


@dg.asset(
    key=DEAD_LETTERS,
    deps=[dg.AssetKey("enriched_events")],
    description="Events that could not be written and are neither delivered nor discarded yet, by tenant and cause. "
    "Correct the cause, then launch redrive_job.",
    group_name="dead_letters",
    kinds={"postgres"},
    owners=OWNERS,
    tags=PERSONAL_DATA,
    code_version="2",
)
def dead_letters(platform: Platform) -> dg.MaterializeResult:  # pyright: ignore[reportMissingTypeArgument, reportUnknownParameterType]
    with platform.connect() as conn:
        groups = count_open(conn, Filter())
    return dg.MaterializeResult(metadata=_found(groups, platform.settings()))


def _found(groups: list[dict[str, Any]], settings: Settings) -> dict[str, Any]:
    columns = [dg.TableColumn(name, "number" if name == "events" else "string") for name in _COLUMNS]
    records = [dg.TableRecord({name: group[name] for name in _COLUMNS}) for group in groups[:50]]
    return {
        "summary": dg.MetadataValue.md(_summary(groups, settings)),
        "events": sum(group["events"] for group in groups),
        "fingerprints": len({group["fingerprint"] for group in groups}),
        "tenants": len({group["tenant"] for group in groups}),
        "by_cause": dg.MetadataValue.table(records, dg.TableSchema(columns)),
    }


def _summary(groups: list[dict[str, Any]], settings: Settings) -> str:
    if not groups:
        return f"**No dead letters.**\n\n{look_further(settings, 'handle-dead-letters')}"
    rows = [
        [group[name] for name in ("tenant", "failed_in", "error_class", "fingerprint", "events")] for group in groups
    ]
    table = markdown_table(["tenant", "failed in", "error class", "fingerprint", "events"], rows[:_ROWS_SHOWN])
    errors = "`pipeline-platform dead-letters list --fingerprint FINGERPRINT` shows the errors themselves."
    next_step = (
        "**Next:** correct the cause, then launch `redrive_job` with its fingerprint: first as it is, a dry run."
    )
    return f"{table}\n\n{errors}\n\n{next_step}\n\n{look_further(settings, 'handle-dead-letters')}"


class RedriveConfig(dg.Config):
    """Which dead letters to try again; what is empty limits nothing."""

    reason: str = Field(description="What was corrected; goes into the audit log. There is no default.")
    dry_run: bool = Field(
        default=True,
        description="true: only say how many it would take. false: do it. The default is true because letters whose "
        "cause still exists use up their attempts again.",
    )
    tenants: list[str] = Field(default=[], description="Only these tenants', by name. Empty, the default: all.")
    fingerprint: str = Field(default="", description="Only this cause, from the asset dead_letters. Empty: all.")
    failed_in: str = Field(
        default="", description="Only what failed in this part: claim, transform, enrich or load. Empty: all."
    )
    error_class: str = Field(default="", description="Only of this class of error. Empty: all.")


@dg.op(description="Makes dead letters due at once, with all their attempts again; the workers deliver them.")
def redrive_dead_letters(context: dg.OpExecutionContext, platform: Platform, config: RedriveConfig) -> None:
    require_reason(config.reason)
    chosen = Filter(
        config.tenants or None,
        config.fingerprint or None,
        failed_in=config.failed_in or None,
        error_class=config.error_class or None,
    )
    with in_plain_words(), platform.connect() as conn:
        tenant_ids_of(conn, config.tenants)
        groups = count_open(conn, chosen)
        redriven = 0 if config.dry_run else redrive(conn, chosen, config.reason)
    context.add_output_metadata({"redriven": redriven, **_found(groups, platform.settings())})
    dry = "; `dry_run: false` tries them again" if config.dry_run else f"; {redriven:,} are tried again"
    context.log.info(f"{sum(group['events'] for group in groups):,} dead letters fit{dry}")


@dg.job(  # pyright: ignore[reportUnknownMemberType]
    description="Tries dead letters again: all that fit the filters in the **Launchpad**. Give the correction as the "
    "reason. A dry run unless `dry_run` is false. The asset `dead_letters` shows which there are.",
    config=prefilled("redrive_dead_letters", RedriveConfig),
    executor_def=dg.in_process_executor,
    metadata=OWNED,
)
def redrive_job() -> None:
    redrive_dead_letters()


DEFS = dg.Definitions(assets=[dead_letters], jobs=[redrive_job])
