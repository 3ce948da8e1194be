"""The verdict: is anything lost, how late is it, for whom. Red means that something is wrong.

Latency is judged by the objective, as for the alert `latency_high`. The rating is `watch` if latency is over the
objective without an alert, or within it while the alert is still open.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pipeline_platform.settings import Settings
from pipeline_platform.watch.console.snapshot import Platform, View
from pipeline_platform.watch.console.wording import duration, milliseconds, number


class Rating(StrEnum):
    """The rating of an answer. watch: not as it should be, but no action is needed yet."""

    FINE = "fine"
    WATCH = "watch"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question: a short word or figure, the evidence, and the next command.

    spoken: for a screen reader, without the figures that change every second.
    """

    question: str
    short: str
    why: str
    spoken: str
    rating: Rating = Rating.FINE
    command: str = ""
    tenants: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The three answers."""

    lost: Answer
    late: Answer
    whom: Answer

    @property
    def spoken(self) -> str:
        return " ".join(f"{answer.question} {answer.spoken}." for answer in (self.lost, self.late, self.whom))


def verdict_of(platform: Platform, view: View, settings: Settings) -> Verdict:
    lost, late = _lost(platform, view), _late(platform, view, settings)
    return Verdict(lost, late, _whom(platform, view, settings, lost, late))


def _lost(platform: Platform, view: View) -> Answer:
    question = "Is anything lost?"
    numbers, old = view.funnel.numbers, view.funnel.legacy_pipeline
    if not view.funnel.balanced:
        return Answer(
            question, "It does not balance", "Some tenant's hour has events that no number accounts for.",
            "It does not balance",
            rating=Rating.BAD, command="pipeline-platform audit",
        )  # fmt: skip
    sums = f"All {number(numbers.received)} events received since {platform.since:%H:%M} are accounted for."
    failed = sum(stage.failed for stage in old.stages) if old else 0
    if platform.phase["is_shadow"] and failed:
        return Answer(
            question, f"{number(failed)} in the old pipeline",
            f"It is production, and reports them as failed. Here: {sums[0].lower()}{sums[1:]}",
            "Yes, in the old pipeline",
            rating=Rating.BAD, command="pipeline-platform recover --last 2h --dry-run",
        )  # fmt: skip
    return Answer(question, "No", sums, "No")


def _late(platform: Platform, view: View, settings: Settings) -> Answer:
    question = "How late is it?"
    if platform.circuit:
        return Answer(
            question, "Workers are stopped", platform.circuit["message"], "Workers are stopped",
            rating=Rating.BAD, command="pipeline-platform circuit status",
        )  # fmt: skip
    if _waits(platform, settings):
        return Answer(
            question, duration(platform.oldest_s or 0.0), "Age of the oldest waiting event.",
            "Events wait for long",
            rating=Rating.BAD, command="pipeline-platform status",
        )  # fmt: skip
    return _by_objective(question, platform, view, settings.objective_latency_p95_ms)


def _waits(platform: Platform, settings: Settings) -> bool:
    """Whether work waits longer than the objective. It is then late, whatever the percentiles are."""
    return (platform.oldest_s or 0.0) > settings.objective_lag_s


# Keys: whether p95 is over the objective now, and whether an alert is open for it.
_JUDGED = {
    (False, False): (Rating.FINE, "The objective of {:g} ms is met.", "It is on time"),
    (True, False): (Rating.WATCH, "Over the objective of {:g} ms; an alert only if it lasts.", "Over the objective"),
    (True, True): (Rating.BAD, "Over the objective of {:g} ms, and it lasts.", "Over the objective, and it lasts"),
    (False, True): (Rating.WATCH, "The objective of {:g} ms is met again; its alert is still open.", "On time again"),
}


def _by_objective(question: str, platform: Platform, view: View, objective_ms: float) -> Answer:
    latency = view.latency
    is_alert = None in view.slow_alerts or (view.tenant is not None and view.tenant in view.slow_alerts)
    rating, judged, spoken = _JUDGED[(latency.p95_ms or 0.0) > objective_ms, is_alert]
    if latency.p95_ms is None:
        short, found = "On time", "Nothing was delivered in the last 5 minutes"
    else:
        half, most = milliseconds(latency.p50_ms), milliseconds(latency.p99_ms)
        short, found = milliseconds(latency.p95_ms), f"95 of 100 events take less; half {half}, 99 of 100 {most}"
    waits = f"oldest waiting {duration(platform.oldest_s)}" if platform.oldest_s is not None else "nothing waits"
    command = "" if rating is Rating.FINE else "pipeline-platform objectives"
    return Answer(question, short, f"{judged.format(objective_ms)} {found}; {waits}.", spoken, rating, command)


def _whom(platform: Platform, view: View, settings: Settings, lost: Answer, late: Answer) -> Answer:
    question = "For whom?"
    parts, old = view.funnel.tenants, view.funnel.legacy_pipeline
    if unbalanced := [part.tenant or "" for part in parts if not part.balanced]:
        return _named(question, unbalanced, "Their account does not balance.")
    if lost.rating is Rating.BAD and old:
        lacking = {row["tenant"]: row["mirrored"] - (row["delivered"] or 0) for row in old.tenants}
        short_of = sorted((name for name in lacking if lacking[name]), key=lambda name: -lacking[name])
        return _named(
            question, short_of, "The old pipeline has not delivered all of theirs; the largest lack comes first."
        )
    if platform.circuit or _waits(platform, settings):
        waiting = sorted(parts, key=lambda part: -part.numbers.in_flight)
        return _named(question, [part.tenant or "" for part in waiting if part.numbers.in_flight], "Their events wait.")
    if late.rating is Rating.BAD or (late.rating is Rating.WATCH and view.slow):
        why = "Their events take longer than the objective allows; the slowest comes first."
        return _named(question, view.slow, why, rating=late.rating)
    if alerted := [name for name in view.slow_alerts if name is not None and view.tenant in (None, name)]:
        return _named(question, alerted, "Their events take longer than the objective allows: an alert is open.")
    if exhausted := [name for name in view.exhausted_tenants if view.tenant in (None, name)]:
        why = "Dead letters of theirs were tried for the last time. They are kept."
        return _named(question, exhausted, why, "pipeline-platform dead-letters list --state exhausted")
    sent = f"{number(len(parts))} {'tenant' if len(parts) == 1 else 'tenants'} sent events."
    return Answer(question, "Nobody", sent, "Nobody is affected")


def _named(
    question: str, tenants: Sequence[str], why: str, command: str = "", *, rating: Rating = Rating.BAD
) -> Answer:
    short = {0: "Everybody", 1: tenants[0] if tenants else ""}.get(len(tenants), f"{number(len(tenants))} tenants")
    return Answer(
        question, short, why, f"{short}. {why}".rstrip("."), rating=rating, command=command, tenants=tenants[:3]
    )
