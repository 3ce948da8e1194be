"""The migration, act by act: the old pipeline alone, shadow run, reconciliation, cutover under load, recovery, the end.

Every step is done as by an operator: phases through their gates, recovery as a Dagster run. A step that fails ends the
demo with its error. A promise that is not kept is reported and does not end the demo.
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from pipeline_platform.account.audit import audit
from pipeline_platform.account.numbers import delivery_rate
from pipeline_platform.db import connect
from pipeline_platform.errors import NotNowError, ServiceError
from pipeline_platform.lab.demo import figures
from pipeline_platform.lab.demo.dagster_runs import run_over_hours
from pipeline_platform.lab.demo.figures import Conn
from pipeline_platform.lab.demo.page import write_page
from pipeline_platform.lab.demo.playing import Played, Playing
from pipeline_platform.lab.demo.report import Details, Promise, Report, Side, Span, promises, write_json
from pipeline_platform.lab.demo.screen import Screen
from pipeline_platform.lab.demo.traffic import TENANTS, acts, planned_events
from pipeline_platform.local.services import Endpoints
from pipeline_platform.migration.cutover.gates import gate_of, is_open
from pipeline_platform.migration.cutover.phases import Phase
from pipeline_platform.migration.cutover.transition import status, turn
from pipeline_platform.migration.reconcile import Reconciliation, reconcile
from pipeline_platform.migration.recovery.dropped import Window, find_dropped
from pipeline_platform.migration.simulation.capacity import PEAK_FACTOR
from pipeline_platform.settings import Settings
from pipeline_platform.tenants.tenants import add_tenant

_ACTS = 6
_WAIT_LIMIT_S = 60.0
_TICK_S = 0.25
# The cutover happens in the middle of the evening's traffic.
_TURN_AFTER_EVENTS = 500
_HOUR = timedelta(hours=1)


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
        story = Story(settings, running, conn, screen, seed, scale)
        story.legacy_only()
        story.shadow()
        story.reconciliation()
        story.cutover()
        story.recovery()
        account_agrees = story.legacy_off()
        report = story.report(began)
        kept = promises(report, acknowledged=story.acknowledged, account_agrees=account_agrees)
        details = story.details()
    write_json(report, reports / "demo-report.json")
    write_page(report, details, kept, reports / "demo-report.html")
    return Outcome(report, kept)


class Story:
    """The acts, to be played once each in their order, and their results."""

    def __init__(
        self, settings: Settings, running: Endpoints, conn: Conn, screen: Screen, seed: int, scale: float
    ) -> None:
        self._settings = settings
        self._running = running
        self._conn = conn
        self._screen = screen
        self._seed = seed
        self._scale = scale
        self._begin = datetime.now(UTC)
        self._spans: list[Span] = []
        self._latencies: dict[str, figures.Latency] = {}
        self._peak = Span("peak", 0, 0)
        self._found = self._recovered = self._missing = 0
        self.acknowledged = 0
        with conn.transaction():
            self._write_keys = [add_tenant(conn, f"tenant-{number:03}").write_key for number in range(1, TENANTS + 1)]

    def legacy_only(self) -> None:
        """Night and morning: the old pipeline is production, and the platform writes beside it."""
        self._screen.act(1, "The old pipeline alone: night and morning, everything is mirrored to it and counted")
        self._turn(Phase.LEGACY_ONLY, "the demo begins")
        with self._traffic("legacy_only") as playing:
            playing.result()
        self._await_settled()
        now = figures.live(self._conn)
        self._screen.say(f"{now.accepted:,} events accepted; the old pipeline lost {now.lost:,} of {now.offered:,}")

    def shadow(self) -> None:
        """The day with its peak: both pipelines process the same events."""
        self._screen.act(2, "Shadow run: the day and its peak through both pipelines")
        self._turn(Phase.SHADOW, "to compare both")
        with self._traffic("shadow") as playing:
            played = playing.result()
        (self._peak,) = (span for span in played.stretches if span.name == "peak")
        self._await_settled()
        begin, end = (datetime.fromtimestamp(at, UTC) for at in (self._peak.begin, self._peak.end))
        window = figures.window(self._conn, begin, end)
        # Measured before the recovery: rows that it moves get the time of its commit.
        self._latencies = figures.latencies(self._conn, begin, end)
        self._screen.say(
            f"at the peak the old pipeline delivered {window.legacy_delivered:,} of {window.accepted:,} events, "
            f"the platform {window.delivered:,}"
        )

    def reconciliation(self) -> None:
        """Compare both outputs event by event: in a Dagster run, and over exactly the events that the demo sent."""
        self._screen.act(3, "Reconciliation: both outputs compared by key and by content")
        self._run("reconcile_job", {})
        found = self._reconcile()
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
        with self._traffic("cutover") as playing:
            self._await("traffic", lambda: playing.sent >= _TURN_AFTER_EVENTS or playing.is_over)
            self._await_gate(Phase.PLATFORM_PRIMARY)
            epoch = self._turn(Phase.PLATFORM_PRIMARY, "parity over the shadow run")
            self._screen.say(f"the platform is production from epoch {epoch} on; the old one is fed for the way back")
            playing.result()
        self._await_settled()
        self._await("the watch to end", lambda: not status(self._conn, self._settings).is_watching)
        found = status(self._conn, self._settings).anomalies
        said = "; ".join(f"{each.name}: {each.found}" for each in found)
        self._screen.say(f"the watch is over: {said or 'no anomaly'}", good=not found)

    def recovery(self) -> None:
        """Deliver to production what the old pipeline dropped while it was production, then compare again."""
        self._screen.act(5, "Recovery of what the old pipeline dropped while it was production")
        window = Window(self._begin, datetime.now(UTC))
        dry = find_dropped(self._conn, window)
        self._found = dry.events
        self._screen.say(f"dry run: {dry.events:,} events of {len(dry.tenants)} tenants are missing in production")
        self._run(
            "recovery_job", {"ops": {"recover_hours": {"config": {"reason": "dropped in the demo", "dry_run": False}}}}
        )
        self._recovered = find_dropped(self._conn, window).already
        totals = self._reconcile().totals
        self._missing = totals.missing
        self._screen.say(
            f"{self._recovered:,} recovered; compared again: {totals.missing:,} missing, {totals.extra:,} extra, "
            f"{totals.mismatched:,} different",
            good=not totals.has_drift,
        )

    def legacy_off(self) -> bool:
        """Send the last events to the platform only; returns whether the recount of all rows equals the counters."""
        self._screen.act(6, "The old pipeline is off; the final audit")
        self._await_gate(Phase.LEGACY_OFF)
        self._turn(Phase.LEGACY_OFF, "the watch is over and nothing is missing")
        with self._traffic("legacy_off") as playing:
            playing.result()
        self._await("the queue to be empty", lambda: self._conn.execute("SELECT FROM queue.work").fetchone() is None)
        agrees = not audit(self._conn).differences
        self._screen.say("the recount of every row agrees with the account", good=agrees)
        return agrees

    def report(self, began: float) -> Report:
        """The figures, counted from rows."""
        totals = figures.totals(self._conn)
        begin, end = (datetime.fromtimestamp(at, UTC) for at in (self._peak.begin, self._peak.end))
        peak = figures.window(self._conn, begin, end)
        missing, doubled = figures.production(self._conn)
        old = Side(
            accepted=totals["legacy_accepted"],
            delivered=totals["legacy_delivered"],
            delivery_rate=delivery_rate(totals["legacy_delivered"], totals["legacy_accepted"]) or 0.0,
            delivery_rate_peak=delivery_rate(peak.legacy_delivered, peak.accepted) or 0.0,
            p95_ms=round(self._latencies["legacy"].p95_ms, 1),
            losses=figures.losses(self._conn, totals["legacy_accepted"], totals["legacy_delivered"]),
        )
        new = Side(
            accepted=totals["accepted"],
            delivered=totals["delivered"],
            delivery_rate=delivery_rate(totals["delivered"], totals["accepted"]) or 0.0,
            delivery_rate_peak=delivery_rate(peak.delivered, peak.accepted) or 0.0,
            p95_ms=round(self._latencies["platform"].p95_ms, 1),
            losses=figures.dead_letters(self._conn),
        )
        # Includes events accepted after the last comparison.
        return Report(
            legacy=old,
            platform=new,
            dropped_found=self._found,
            recovered=self._recovered,
            missing_after=max(self._missing, missing),
            doubled=doubled,
            seed=self._seed,
            seconds=round(time.monotonic() - began, 1),
        )

    def details(self) -> Details:
        """Further data for the charts."""
        return Details(figures.rates(self._conn), figures.tenants(self._conn), self._latencies, self._spans, self._peak)

    @contextmanager
    def _traffic(self, act: str) -> Generator[Playing]:
        """Start this act's traffic; when the context ends, all of it was sent."""
        stretches = acts(PEAK_FACTOR, self._scale)[act]
        capacity_per_s = self._settings.legacy_capacity_per_s
        order = {
            "act": act,
            "seed": self._seed,
            "scale": self._scale,
            "peak_factor": PEAK_FACTOR,
            "capacity_per_s": capacity_per_s,
            "port": urlsplit(self._running.gateway).port,
            "write_keys": self._write_keys,
        }
        with Playing(order) as playing:
            self._screen.follow(playing, planned_events(stretches, capacity_per_s))
            yield playing
            played = playing.result()
        self._screen.follow(None)
        self._note(act, played)

    def _note(self, act: str, played: Played) -> None:
        self.acknowledged += played.acknowledged
        self._spans.append(Span(act, played.stretches[0].begin, played.stretches[-1].end))
        others = {answer: count for answer, count in played.statuses.items() if answer != "200"}
        if others:
            self._screen.say(f"requests that were not acknowledged: {others}", good=False)

    def _turn(self, phase: Phase, reason: str) -> int:
        self._await_gate(phase)
        return turn(self._conn, self._settings, phase, reason=reason, actor="demo")

    def _await_gate(self, phase: Phase) -> None:
        self._await(f"the gate to {phase}", lambda: is_open(gate_of(self._conn, self._settings, phase)))

    def _await_settled(self) -> None:
        """Wait until both pipelines have delivered or lost everything that was sent."""
        self._await("both pipelines to finish", lambda: not figures.is_busy(self._conn))

    def _await(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _WAIT_LIMIT_S
        while not condition():
            if time.monotonic() > deadline:
                raise ServiceError(f"waited {_WAIT_LIMIT_S:.0f} s for {what}: see {self._settings.home / 'logs'}")
            time.sleep(_TICK_S)

    def _reconcile(self) -> Reconciliation:
        """Compare everything so far when it is settled."""
        deadline = time.monotonic() + _WAIT_LIMIT_S
        end = datetime.now(UTC)
        while True:
            try:
                return reconcile(self._conn, self._begin, end, only_settled=True)
            except NotNowError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_TICK_S)

    def _run(self, job: str, config: dict[str, Any]) -> None:
        """Run a Dagster job over the hours of the demo; returns when it has succeeded."""
        if self._running.dagster is None:
            raise ServiceError("the demo's platform runs without Dagster")
        began = time.monotonic()
        run = run_over_hours(self._running.dagster, job, self._hours(), config)
        seconds = time.monotonic() - began
        self._screen.say(f"{job} ran in Dagster for {seconds:.0f} s: {self._running.dagster}/runs/{run}")

    def _hours(self) -> list[datetime]:
        """The hours of received_at in which the demo sent events."""
        hour = self._begin.replace(minute=0, second=0, microsecond=0)
        hours = [hour]
        while hours[-1] + _HOUR <= datetime.now(UTC):
            hours.append(hours[-1] + _HOUR)
        return hours
