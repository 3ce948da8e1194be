"""The group `replay`: hours processed again, committed and undone."""

import dagster as dg

from pipeline_platform.defs.replay.diffs import replay_hours, replay_job, replayed_hours
from pipeline_platform.defs.replay.jobs import commit_replay_job, undo_replay_job

DEFS = dg.Definitions(assets=[replay_hours, replayed_hours], jobs=[replay_job, commit_replay_job, undo_replay_job])
