"""The migration, act by act: the old pipeline alone, shadow run, reconciliation, cutover under load, recovery, the end.

Every step is done as by an operator: phases through their gates, recovery as a Dagster run. A step that fails ends the
demo with its error. A promise that is not kept is reported and does not end the demo.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from pipeline_platform.account.audit import audit
from pipeline_platform.db import connect
from pipeline_platform.lab.demo import figures
from pipeline_platform.lab.demo.figures import Conn
from pipeline_platform.lab.demo.measuring import Measured, report_of
from pipeline_platform.lab.demo.operator import Operator
from pipeline_platform.lab.demo.page import write_page
from pipeline_platform.lab.demo.report import Details, Promise, Report, promises, write_json
from pipeline_platform.lab.demo.screen import Screen
from pipeline_platform.lab.demo.sending import Sending
from pipeline_platform.local.services import Endpoints
from pipeline_platform.migration.cutover.phases import Phase
from pipeline_platform.migration.recovery.dropped import Window, find_dropped
from pipeline_platform.settings import Settings

_ACTS = 6
# The cutover happens in the middle of the evening's traffic.
_TURN_AFTER_EVENTS = 500


@dataclass(frozen=True, slots=True)
class Outcome:
    """The demo's measurements, and its promises with their results."""

    report: Report
    promises: list[Promise]

    @property
    def kept(self) -> bool:
        return all(promise.kept for promise in self.promises)


def play(
    settings: Settings, running: Endpoints, *, reports: Path, seed: int, scale: float, began: float, console: Console
) -> Outcome:
    """Play all acts on a newly started platform, and write the report into the directory `reports`.

    began: time.monotonic() at the start of the demo. ServiceError if a step fails.
    """
    with (
        connect(running.database_url, "demo", statement_timeout_s=0) as conn,
        Screen(console, running.database_url, _ACTS) as screen,
    ):
        capacity = settings.legacy_capacity_per_s
        sending = Sending(conn, screen, running.gateway, seed=seed, scale=scale, capacity=capacity)
        story = Story(conn, screen, Operator(settings, running, conn, screen), sending)
        story.legacy_only()
        story.shadow()
        story.reconciliation()
        story.cutover()
        story.recovery()
        account_agrees = story.legacy_off()
        measured = story.measured
        report = report_of(conn, measured, seed=seed, began=began)
        kept = promises(report, acknowledged=sending.acknowledged, account_agrees=account_agrees)
        details = Details(figures.rates(conn), figures.tenants(conn), measured.latencies, sending.spans, measured.peak)
    write_json(report, reports / "demo-report.json")
    write_page(report, details, kept, reports / "demo-report.html")
    return Outcome(report, kept)


class Story:
    """The acts, to be played once each in their order. measured: what they find."""

    def __init__(self, conn: Conn, screen: Screen, operator: Operator, sending: Sending) -> None:
        self._conn = conn
        self._screen = screen
        self._operator = operator
        self._sending = sending
        self.measured = Measured()

    def legacy_only(self) -> None:
        """Night and morning: the old pipeline is production, and the platform writes beside it."""
        self._screen.act(1, "The old pipeline alone: night and morning, everything is mirrored to it and counted")
        self._operator.turn(Phase.LEGACY_ONLY, "the demo begins")
        self._sending.send("legacy_only")
        self._operator.wait_until_settled()
        now = figures.live(self._conn)
        self._screen.say(f"{now.accepted:,} events accepted; the old pipeline lost {now.lost:,} of {now.offered:,}")

    def shadow(self) -> None:
        """The day with its peak: both pipelines process the same events."""
        self._screen.act(2, "Shadow run: the day and its peak through both pipelines")
        self._operator.turn(Phase.SHADOW, "to compare both")
        played = self._sending.send("shadow")
        (self.measured.peak,) = (span for span in played.stretches if span.name == "peak")
        self._operator.wait_until_settled()
        begin, end = self.measured.peak_window()
        window = figures.window(self._conn, begin, end)
        # Measured before the recovery: rows that it moves get the time of its commit.
        self.measured.latencies = figures.latencies(self._conn, begin, end)
        self._screen.say(
            f"at the peak the old pipeline delivered {window.legacy_delivered:,} of {window.accepted:,} events, "
            f"the platform {window.delivered:,}"
        )

    def reconciliation(self) -> None:
        """Compare both outputs event by event: in a Dagster run, and over exactly the events that the demo sent."""
        self._screen.act(3, "Reconciliation: both outputs compared by key and by content")
        self._operator.run("reconcile_job", {}, self._operator.hours())
        found = self._operator.reconcile()
        totals = found.totals
        self._screen.say(
            f"{totals.accepted:,} accepted, {totals.matched:,} equal in both, {totals.mismatched:,} different, "
            f"{totals.dropped:,} dropped by the old pipeline"
        )
        lost = ", ".join(f"{stage} {events:,}" for stage, events in found.stages.items())
        self._screen.say(f"where they died: {lost or 'nowhere'}")
        self._screen.say("parity: the platform lacks nothing and changed nothing", good=found.has_parity)

    def cutover(self) -> None:
        """The evening: the platform becomes production while events arrive, and the watch runs."""
        self._screen.act(4, "Cutover under load, through its gate")
        with self._sending.traffic("cutover") as playing:
            self._operator.wait_for("traffic", lambda: playing.sent >= _TURN_AFTER_EVENTS or playing.is_over)
            epoch = self._operator.turn(Phase.PLATFORM_PRIMARY, "parity over the shadow run")
            self._screen.say(f"the platform is production from epoch {epoch} on; the old one is fed for the way back")
            playing.result()
        self._operator.wait_until_settled()
        self._operator.wait_for("the watch to end", lambda: not self._operator.status().is_watching)
        found = self._operator.status().anomalies
        said = "; ".join(f"{each.name}: {each.found}" for each in found)
        self._screen.say(f"the watch is over: {said or 'no anomaly'}", good=not found)

    def recovery(self) -> None:
        """Deliver to production what the old pipeline dropped while it was production, then compare again."""
        self._screen.act(5, "Recovery of what the old pipeline dropped while it was production")
        window = Window(self._operator.begin, datetime.now(UTC))
        dry = find_dropped(self._conn, window)
        self.measured.found = dry.events
        self._screen.say(f"dry run: {dry.events:,} events of {len(dry.tenants)} tenants are missing in production")
        config = {"hours": self._operator.span(), "reason": "dropped in the demo", "dry_run": False}
        self._operator.run("recovery_job", {"ops": {"recover_hours": {"config": config}}})
        self.measured.recovered = find_dropped(self._conn, window).already
        totals = self._operator.reconcile().totals
        self.measured.missing = totals.missing
        self._screen.say(
            f"{self.measured.recovered:,} recovered; compared again: {totals.missing:,} missing, "
            f"{totals.extra:,} extra, {totals.mismatched:,} different",
            good=not totals.has_drift,
        )

    def legacy_off(self) -> bool:
        """Send the last events to the platform only; returns whether the recount of all rows equals the counters."""
        self._screen.act(6, "The old pipeline is off; the final audit")
        self._operator.turn(Phase.LEGACY_OFF, "the watch is over and nothing is missing")
        self._sending.send("legacy_off")
        self._operator.wait_for(
            "the queue to be empty", lambda: self._conn.execute("SELECT FROM queue.work").fetchone() is None
        )
        agrees = not audit(self._conn).differences
        self._screen.say("the recount of every row agrees with the account", good=agrees)
        return agrees
