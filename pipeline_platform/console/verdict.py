"""The one answer: is anything lost, how late is it, for whom. Red only for what is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline_platform.console.snapshot import Platform, View
from pipeline_platform.console.wording import duration, milliseconds, number
from pipeline_platform.settings import Settings

# As a cutover's gates judge: work that waits longer is late whatever the percentiles say.
_WAITS_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """To one question: a word or figure to be read from afar, what it rests on, and what to type next.

    spoken: for a screen reader, without the figures that change every second.
    """

    question: str
    short: str
    why: str
    spoken: str
    is_bad: bool = False
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
    return Verdict(lost, late, _whom(platform, view, lost, late))


def _lost(platform: Platform, view: View) -> Answer:
    question = "Is anything lost?"
    numbers, old = view.funnel.numbers, view.funnel.old_pipeline
    if not view.funnel.balanced:
        return Answer(
            question, "It does not balance", "Some tenant's hour has events that no number accounts for.",
            "It does not balance",
            is_bad=True, command="pipeline-platform audit",
        )  # fmt: skip
    sums = f"All {number(numbers.received)} events received since {platform.since:%H:%M} are accounted for."
    failed = sum(stage.failed for stage in old.stages) if old else 0
    if platform.phase["is_shadow"] and failed:
        return Answer(
            question, f"{number(failed)} in the old pipeline",
            f"It is production, and reports them as failed. Here: {sums[0].lower()}{sums[1:]}",
            "Yes, in the old pipeline",
            is_bad=True, command="pipeline-platform recover --last 2h --dry-run",
        )  # fmt: skip
    return Answer(question, "No", sums, "No")


def _late(platform: Platform, view: View, settings: Settings) -> Answer:
    question = "How late is it?"
    if platform.circuit:
        return Answer(
            question, "Workers are stopped", platform.circuit["message"], "Workers are stopped",
            is_bad=True, command="pipeline-platform circuit status",
        )  # fmt: skip
    oldest_s, latency = platform.oldest_s or 0.0, view.latency
    waits = f"oldest waiting {duration(oldest_s)}" if platform.oldest_s is not None else "nothing waits"
    if oldest_s > _WAITS_S_MAX:
        return Answer(
            question, duration(oldest_s), "So long the oldest event has been waiting.", "Events wait for long",
            is_bad=True, command="pipeline-platform status",
        )  # fmt: skip
    if latency.p95_ms is None:
        return Answer(question, "On time", f"Nothing was delivered in the last 5 minutes; {waits}.", "It is on time")
    is_bad = latency.p95_ms > settings.latency_p95_ms_max
    return Answer(
        question, milliseconds(latency.p95_ms),
        f"95 of 100 events take less; half {milliseconds(latency.p50_ms)}, 99 of 100 {milliseconds(latency.p99_ms)}; "
        f"{waits}.",
        "Later than it should be" if is_bad else "It is on time",
        is_bad=is_bad, command="pipeline-platform status" if is_bad else "",
    )  # fmt: skip


def _whom(platform: Platform, view: View, lost: Answer, late: Answer) -> Answer:
    question = "For whom?"
    parts, old = view.funnel.tenants, view.funnel.old_pipeline
    if unbalanced := [part.tenant or "" for part in parts if not part.balanced]:
        return _named(question, unbalanced, "Their account does not balance.")
    if lost.is_bad and old:
        lacking = {row["tenant"]: row["mirrored"] - (row["delivered"] or 0) for row in old.tenants}
        short_of = sorted((name for name in lacking if lacking[name]), key=lambda name: -lacking[name])
        return _named(
            question, short_of, "The old pipeline has not delivered all of theirs; who lacks most comes first."
        )
    if late.is_bad and (platform.circuit or (platform.oldest_s or 0.0) > _WAITS_S_MAX):
        waiting = sorted(parts, key=lambda part: -part.numbers.in_flight)
        return _named(question, [part.tenant or "" for part in waiting if part.numbers.in_flight], "Their events wait.")
    if late.is_bad:
        return _named(question, view.slow, "Their events take longer than they should; the slowest comes first.")
    if exhausted := [name for name in view.exhausted_tenants if view.tenant in (None, name)]:
        why = "Dead letters of theirs were tried for the last time. They are kept."
        return _named(question, exhausted, why, "pipeline-platform dead-letters list --state exhausted")
    sent = f"{number(len(parts))} {'tenant' if len(parts) == 1 else 'tenants'} sent events."
    return Answer(question, "Nobody", sent, "Nobody is affected")


def _named(question: str, tenants: Sequence[str], why: str, command: str = "") -> Answer:
    short = {0: "Everybody", 1: tenants[0] if tenants else ""}.get(len(tenants), f"{number(len(tenants))} tenants")
    return Answer(
        question, short, why, f"{short}. {why}".rstrip("."), is_bad=True, command=command, tenants=tenants[:3]
    )
