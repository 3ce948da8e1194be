"""Dagster's definitions: a room for each group of assets, merged in `pipeline_platform/definitions.py`.

events/         accepted → enriched → delivered: finishes hours and proves their account
customers/      roll-ups and the daily report
warehouse/      exports hours as Parquet files
migration/      compares with the old pipeline, finds and recovers what it dropped, watches the cutover
replay/         diffs hours, commits a diff and undoes it
retention/      archives hours and drops them
operations/     alerts, failed and stuck runs, and the pruning of Dagster's own runs
dead_letters.py what could not be written, and its redrive
outside.py      what is before and after the platform, for the lineage

Shared: recording.py (how a step over hours reports), verdicts.py (checks over hours), hours.py (partitions),
policies.py (owner, retries, time-outs, errors), automation.py (whether sensors and schedules are on), resources.py,
launchpad.py (configs), columns.py, summaries.py and tables.py (metadata).
"""
