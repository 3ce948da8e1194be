"""Compares the old pipeline's output with the platform's, event by event, for any window of received_at.

Reads only, but for its own tables in the schema `reconcile`. Knows no threshold: one missing event is drift. What it
cannot judge yet (events in flight, or waiting for the mirror) it counts in the coverage and judges in a later run.

Where it finds drift: `pipeline-platform trace MESSAGE_ID` shows one of the samples' way; what was dropped comes back by
`pipeline-platform recover`.
"""

from pipeline_platform.migration.reconcile.compare import default_window, reconcile
from pipeline_platform.migration.reconcile.result import Counts, Reconciliation, Tenant
from pipeline_platform.migration.reconcile.waiting import Settled, settled, settled_until

__all__ = ["Counts", "Reconciliation", "Settled", "Tenant", "default_window", "reconcile", "settled", "settled_until"]
