"""Helpers for the launchpad: every field of a config with its default.

Dagster fills the launchpad of a job of ops with `prefilled`. The dialog for a range of partitions begins with an empty
config: `example` is the text to paste there, and the job's description shows it.
"""

import json
from typing import Any

import dagster as dg


def prefilled(op: str, config: type[dg.Config]) -> dict[str, Any]:
    """The run config with all fields of `config`; those without a default are empty."""
    fields: dict[str, Any] = {
        name: field.default if not field.is_required() else 0 if field.annotation is int else ""
        for name, field in config.model_fields.items()
    }
    return {"ops": {op: {"config": fields}}}


def example(op: str, **values: Any) -> str:
    """The run config with these values, as a block of YAML in Markdown."""
    lines = [f"      {name}: {json.dumps(value)}" for name, value in values.items()]
    return "\n".join(["```yaml", "ops:", f"  {op}:", "    config:", *lines, "```"])


def require_reason(reason: str) -> None:
    """Failure if the reason is empty."""
    if not reason.strip():
        raise dg.Failure(
            "`reason` is empty in the config of this run: say in a few words why you do this. It is kept with what was "
            "done, in control.audit_log. Nothing was changed",
            allow_retries=False,
        )


def reason_of(context: dg.AssetExecutionContext, reason: str) -> str:
    """The reason, or where the run was launched if none was given."""
    if reason.strip():
        return reason
    where = "an asset page" if context.job_name.startswith("__ASSET_JOB") else context.job_name
    return f"launched in Dagster from {where}, run {context.run.run_id}"
