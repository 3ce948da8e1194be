"""Does what an operator does with the platform: phases through their gates, comparisons, Dagster runs. And it waits."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline_platform.errors import NotNowError, ServiceError
from pipeline_platform.lab.demo import figures
from pipeline_platform.lab.demo.dagster_runs import partition_of, run_job
from pipeline_platform.lab.demo.figures import Conn
from pipeline_platform.lab.demo.screen import Screen
from pipeline_platform.local.services import Endpoints
from pipeline_platform.migration.cutover.gates import gate_of
from pipeline_platform.migration.cutover.phases import Phase
from pipeline_platform.migration.cutover.transition import CutoverStatus, status, turn
from pipeline_platform.migration.reconcile import Reconciliation, reconcile
from pipeline_platform.settings import Settings

_WAIT_LIMIT_S = 180.0
_TICK_S = 0.25
_HOUR = timedelta(hours=1)


class Operator:
    """The operator of one platform, since `begin`. Every wait ends with a ServiceError after three minutes."""

    def __init__(self, settings: Settings, running: Endpoints, conn: Conn, screen: Screen) -> None:
        self._settings = settings
        self._running = running
        self._conn = conn
        self._screen = screen
        self.begin = datetime.now(UTC)

    def turn(self, phase: Phase, reason: str) -> int:
        """Enter a phase once its gate is open. Returns the new epoch."""
        self.wait_for(f"the gate to {phase}", lambda: not self._unmet(phase), lambda: self._unmet(phase))
        return turn(self._conn, self._settings, phase, reason=reason, actor="demo")

    def status(self) -> CutoverStatus:
        """The state of the cutover."""
        return status(self._conn, self._settings)

    def wait_until_settled(self) -> None:
        """Wait until both pipelines have delivered or lost everything that was sent."""
        self.wait_for("both pipelines to finish", lambda: not figures.is_busy(self._conn))

    def _unmet(self, phase: Phase) -> str:
        """The conditions that keep the gate closed; empty if it is open."""
        conditions = gate_of(self._conn, self._settings, phase)
        return "; ".join(f"{each.name}: {each.found}" for each in conditions if not each.is_met)

    def wait_for(self, what: str, condition: Callable[[], bool], found: Callable[[], str] = str) -> None:
        """Wait for a condition. `what` names it in the error, `found` says there what keeps it from being met."""
        deadline = time.monotonic() + _WAIT_LIMIT_S
        while not condition():
            if time.monotonic() > deadline:
                detail = f" ({said})" if (said := found()) else ""
                logs = self._settings.home / "logs"
                raise ServiceError(f"waited {_WAIT_LIMIT_S:.0f} s for {what}{detail}: see {logs}")
            time.sleep(_TICK_S)

    def reconcile(self) -> Reconciliation:
        """Compare everything so far when it is settled. NotNowError if it is not within the time."""
        deadline = time.monotonic() + _WAIT_LIMIT_S
        end = datetime.now(UTC)
        while True:
            try:
                return reconcile(self._conn, self.begin, end, only_settled=True)
            except NotNowError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_TICK_S)

    def run(self, job: str, config: dict[str, Any], hours: Sequence[datetime] = ()) -> None:
        """Run a Dagster job, over these partitions; returns when it has succeeded."""
        if self._running.dagster is None:
            raise ServiceError("the demo's platform runs without Dagster")
        began = time.monotonic()
        run = run_job(self._running.dagster, job, config, hours)
        seconds = time.monotonic() - began
        self._screen.say(f"{job} ran in Dagster for {seconds:.0f} s: {self._running.dagster}/runs/{run}")

    def hours(self) -> list[datetime]:
        """The hours of received_at in which the demo sent events."""
        hour = self.begin.replace(minute=0, second=0, microsecond=0)
        hours = [hour]
        while hours[-1] + _HOUR <= datetime.now(UTC):
            hours.append(hours[-1] + _HOUR)
        return hours

    def span(self) -> str:
        """The same hours as Dagster's dialogs write them."""
        hours = self.hours()
        return f"[{partition_of(hours[0])}...{partition_of(hours[-1])}]"
