"""dead_letters: what could not be written, by tenant and cause; redrive_job tries them again.

An operator looks at the asset, mends the cause, and launches the job: a dry run unless its config says otherwise.
"""

from typing import Any

import dagster as dg
from pydantic import Field

from pipeline_platform.defs.owners import OWNED, OWNERS
from pipeline_platform.defs.resources import Platform
from pipeline_platform.operate.dead_letters import Filter, count_open, redrive

DEAD_LETTERS = dg.AssetKey("dead_letters")
_COLUMNS = ["tenant", "stage", "error_class", "fingerprint", "sample_error", "events"]


@dg.asset(
    key=DEAD_LETTERS,
    description="Events that could not be written and are neither delivered nor discarded yet, by tenant and cause.",
    group_name="dead_letters",
    kinds={"postgres"},
    owners=OWNERS,
    code_version="1",
)
def dead_letters(platform: Platform) -> dg.MaterializeResult:  # pyright: ignore[reportMissingTypeArgument, reportUnknownParameterType]
    with platform.connect() as conn:
        groups = count_open(conn, Filter())
    return dg.MaterializeResult(metadata=_found(groups))


def _found(groups: list[dict[str, Any]]) -> dict[str, Any]:
    columns = [dg.TableColumn(name, "number" if name == "events" else "string") for name in _COLUMNS]
    records = [dg.TableRecord({name: group[name] for name in _COLUMNS}) for group in groups[:50]]
    return {
        "events": sum(group["events"] for group in groups),
        "fingerprints": len({group["fingerprint"] for group in groups}),
        "tenants": len({group["tenant"] for group in groups}),
        "by_cause": dg.MetadataValue.table(records, dg.TableSchema(columns)),
    }


class RedriveConfig(dg.Config):
    """Which dead letters to try again; what is empty limits nothing."""

    reason: str = Field(description="What was mended; goes into the audit log.")
    dry_run: bool = Field(default=True, description="Only say how many it would take.")
    tenant: str = Field(default="", description="Only this tenant's, by name.")
    fingerprint: str = Field(default="", description="Only this cause.")
    stage: str = Field(default="", description="Only of this stage: claim, enrich, transform or load.")
    error_class: str = Field(default="", description="Only of this class of error.")


@dg.op(description="Makes dead letters due at once, with all their attempts again; the workers deliver them.")
def redrive_dead_letters(context: dg.OpExecutionContext, platform: Platform, config: RedriveConfig) -> None:
    if not config.reason.strip():
        raise dg.Failure("say in `reason` what was mended", allow_retries=False)
    chosen = Filter(
        config.tenant or None,
        config.fingerprint or None,
        stage=config.stage or None,
        error_class=config.error_class or None,
    )
    with platform.connect() as conn:
        groups = count_open(conn, chosen)
        redriven = 0 if config.dry_run else redrive(conn, chosen, config.reason)
    context.add_output_metadata({"redriven": redriven, **_found(groups)})
    context.log.info(f"{sum(group['events'] for group in groups):,} dead letters fit; {redriven:,} are tried again")


@dg.job(  # pyright: ignore[reportUnknownMemberType]
    description="Tries dead letters of one filter again. Say why; with `dry_run: false` it does it.",
    executor_def=dg.in_process_executor,
    metadata=OWNED,
)
def redrive_job() -> None:
    redrive_dead_letters()
