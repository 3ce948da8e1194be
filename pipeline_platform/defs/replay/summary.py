"""A replay in words: the result of its diff, the result of its commit, and the next step.

Dagster may keep these texts after a person is erased from the platform. So values are shown only for columns without
personal data; for others only the kind of value is shown. `pipeline-platform replay diff` shows the values.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from pipeline_platform.defs.launchpad import example
from pipeline_platform.defs.summaries import look_further, markdown_table
from pipeline_platform.replay import report
from pipeline_platform.settings import Settings

_COUNTS = ("added", "changed", "removed", "unchanged", "failed")
_IMPERSONAL = {"type", "name"}
_FIELDS_SHOWN, _SAMPLES_SHOWN = 20, 12
_NUMBERS = ("events", "added", "changed", "removed", "unchanged", "failed")
_SAMPLE = ("what", "tenant", "event_id", "field", "now", "replayed")

Found = Mapping[str, Any]


def summary(found: Found, settings: Settings) -> dg.MarkdownMetadataValue:
    """The whole summary."""
    totals = found["totals"]
    parts = [
        f"**Replay {found['replay_id']}: {_verdict(found)}**",
        f"{found['reason']} ({found['actor']}). {_scope(found)}",
        markdown_table(["of the diff", "events"], [(name, totals[name]) for name in _COUNTS]),
        *_unswept(found),
        *_fields(found),
        *_samples(found),
        *_committed(found),
        f"**Next:** {_next(found)}",
        look_further(settings, "replay-a-window"),
    ]
    return dg.MetadataValue.md("\n\n".join(parts))


def hour_metadata(found: Found, hour: Mapping[str, int] | None, settings: Settings) -> dict[str, Any]:
    """The metadata of one hour of a replay. hour: its numbers; None: no event of it was processed."""
    numbers = {name: hour[name] if hour else 0 for name in _NUMBERS}
    metadata: dict[str, Any] = {
        "result": _result(found, numbers),
        "summary": summary(found, settings),
        "replay_id": found["replay_id"],
        "state": str(found["state"]),
        **numbers,
    }
    # After a commit, production has the replayed values, and the samples would compare them with themselves.
    return metadata | ({} if found["state"] == "committed" else {"samples": samples(found)})


def _result(found: Found, numbers: Mapping[str, int]) -> str:
    """One line: what became of the hour, of the window, and what to do next."""
    differ = report.differs(numbers)
    replay_id = found["replay_id"]
    if found["state"] == "committed":
        return f"Replay {replay_id}: {_verdict(found)} in all, {differ:,} of this hour. undo_replay_job takes it back."
    if found["state"] == "undone":
        return f"Undone: of replay {replay_id}, {_verdict(found)}. The hour is as before the replay."
    if not report.differs(found["totals"]):
        return f"Replay {replay_id}: nothing differs in {numbers['events']:,} events of this hour."
    return (
        f"Replay {replay_id}: {_verdict(found)}. Of this hour: {numbers['added']:,} added, {numbers['changed']:,} "
        f"changed, {numbers['removed']:,} removed, {numbers['unchanged']:,} unchanged. commit_replay_job commits it."
    )


def samples(found: Found) -> dg.TableMetadataValue:
    """A table with a row for each field of each sample."""
    columns = [dg.TableColumn(name) for name in _SAMPLE]
    return dg.MetadataValue.table([dg.TableRecord(row) for row in _sample_rows(found)], dg.TableSchema(columns))


def _verdict(found: Found) -> str:
    rows = report.differs(found["totals"])
    said = {
        "diffed": f"{rows:,} rows would change. Nothing has changed yet" if rows else "nothing differs",
        "committed": f"{sum(found['committed'][name] for name in _COUNTS[:3]):,} rows were changed",
        "undone": f"{found['undo']['restored']:,} rows are as they were before",
    }
    return said.get(found["state"], str(found["state"]))


def _scope(found: Found) -> str:
    before, after = ", ".join(found["transform_from"] or []) or "unknown", found["transform_to"]
    return (
        f"Received {found['window_start']:%Y-%m-%d %H:%M} to {found['window_end']:%Y-%m-%d %H:%M} UTC; "
        f"tenants: {', '.join(found['tenants']) or 'all'}; types: {', '.join(found['types'] or []) or 'all'}"
        f"{'; only what is missing' if found['only_missing'] else ''}. Transform: {before} → {after}."
    )


def _unswept(found: Found) -> Iterator[str]:
    hours = found["unswept_hours"]
    if hours:
        yield (
            f"{len(hours)} hours do not hold all that was accepted, the first {hours[0]:%Y-%m-%d %H:%M} UTC: "
            "nothing in them is called removed."
        )


def _fields(found: Found) -> Iterator[str]:
    rows = [(f"`{row['field']}`", row["rows"]) for row in found["fields"][:_FIELDS_SHOWN]]
    if rows:
        yield markdown_table(["changed field", "rows"], rows)


def _samples(found: Found) -> Iterator[str]:
    rows = [[row[name] for name in _SAMPLE] for row in _sample_rows(found)[:_SAMPLES_SHOWN]]
    if rows and found["state"] != "committed":
        yield markdown_table(["sample", *_SAMPLE[1:]], rows)


def _sample_rows(found: Found) -> list[dict[str, str]]:
    return [
        {
            "what": sample["action"],
            "tenant": sample["tenant"],
            "event_id": str(sample["event_id"]),
            "field": field,
            "now": _shown(field, sample["now"]),
            "replayed": _shown(field, sample["replayed"]),
        }
        for sample in found["samples"]
        for field in sample["fields"] or [""]
    ]


def _shown(field: str, values: dict[str, Any] | None) -> str:
    value = (values or {}).get(field)
    if value is None or field in _IMPERSONAL:
        return "" if value is None else json.dumps(value)
    return f"{len(value)} characters" if isinstance(value, str) else f"a value ({type(value).__name__})"


def _committed(found: Found) -> Iterator[str]:
    committed = found["committed"]
    if any(committed.values()):
        yield markdown_table(["of the commit", "events"], list(committed.items()))
    if committed["skipped"]:
        yield "Skipped: they changed in production since the diff. Diff again, or commit with `take_newer: true`."


def _next(found: Found) -> str:
    replay_id = found["replay_id"]
    match found["state"]:
        case "diffed" if report.differs(found["totals"]):
            config = example("commit_replay", replay_id=replay_id)
            return f"launch `commit_replay_job` with this config, and production is as the diff says:\n\n{config}"
        case "committed":
            config = example("undo_replay", replay_id=replay_id, reason="…", dry_run=False)
            return f"look at your data. `undo_replay_job` takes all of it back within the retention:\n\n{config}"
        case _:
            return "nothing."
