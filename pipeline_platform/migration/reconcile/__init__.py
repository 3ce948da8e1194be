"""Compares the old pipeline's output with the platform's, event by event, for any window of received_at.

Writes only its own tables in the schema `reconcile`. Has no threshold: one missing event is drift. Events that it
cannot judge yet (in flight, or waiting for the mirror) are counted in the coverage and judged in a later run.

If it finds drift: `pipeline-platform trace MESSAGE_ID` shows the stages of a sample; `pipeline-platform recover`
delivers dropped events.
"""

from pipeline_platform.migration.reconcile.compare import default_window, reconcile
from pipeline_platform.migration.reconcile.result import Counts, Reconciliation, Tenant
from pipeline_platform.migration.reconcile.waiting import Settled, settled, settled_until

__all__ = ["Counts", "Reconciliation", "Settled", "Tenant", "default_window", "reconcile", "settled", "settled_until"]
