"""The text of messages: one alert as a message, or many as one. Pure; contains no content of events.

The title of an alert does not change when it is resolved: PagerDuty (`?action=map`) finds the incident by it.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline_platform.telemetry.visible import visible
from pipeline_platform.watch.alerts.catalogue import AlertKind, Severity, about

_LINES_MAX = 30


@dataclass(frozen=True, slots=True)
class Notice:
    """One change of one alert, to be sent."""

    notification_id: int
    change: str
    alert_id: int | None
    kind: str
    fingerprint: str
    tenant: str | None
    message: str
    occurrences: int
    opened_at: datetime
    resolved_at: datetime | None
    sample_id: str | None

    @property
    def about(self) -> AlertKind:
        return about(self.kind)


@dataclass(frozen=True, slots=True)
class Message:
    """The content of one request to a channel. ids: the notifications that it contains."""

    title: str
    body: str
    severity: Severity
    is_over: bool
    ids: tuple[int, ...]


def message_of(notice: Notice, runbooks_url: str) -> Message:
    """The message about one alert."""
    kind = notice.about
    over = notice.resolved_at and notice.change == "resolved"
    lines = [
        f"resolved at {_time(notice.resolved_at)}" if over and notice.resolved_at else f"{kind.severity}, open",
        f"what: {notice.message}",
        f"who: {f'tenant {notice.tenant}' if notice.tenant else 'the platform'}",
        f"since: {_time(notice.opened_at)}",
        f"how many: {notice.occurrences:,}",
    ]
    if notice.sample_id:
        lines.append(f"sample: {notice.sample_id}")
    if not over:
        lines += [f"runbook: {runbook(kind, runbooks_url)}", f"next: {next_command(notice)}"]
    if notice.alert_id is not None:
        lines.append(f"alert: {notice.alert_id}")
    return Message(
        title_of(notice), "\n".join(map(visible, lines)), kind.severity, bool(over), (notice.notification_id,)
    )


def digest_of(notices: Sequence[Notice]) -> Message:
    """Many notices as one message: a line each, the critical ones first."""
    opened = [each for each in notices if each.change == "opened"]
    ordered = sorted(notices, key=lambda each: (each.about.severity is not Severity.CRITICAL, each.change))
    lines = [f"{each.change}: {title_of(each)}: {each.message}" for each in ordered[:_LINES_MAX]]
    if len(ordered) > _LINES_MAX:
        lines.append(f"and {len(ordered) - _LINES_MAX} more")
    lines.append("next: pipeline-platform alerts list --all")
    severity = min((each.about.severity for each in opened), default=Severity.WARNING)
    title = f"{len(opened)} alerts opened, {len(notices) - len(opened)} resolved"
    return Message(
        title, "\n".join(map(visible, lines)), severity, not opened, tuple(each.notification_id for each in notices)
    )


def title_of(notice: Notice) -> str:
    """The title. It names the cause and is the same in all messages about the alert."""
    who = f", tenant {notice.tenant}" if notice.tenant else ""
    return visible(f"{notice.about.title}{who} ({notice.fingerprint})")


def runbook(kind: AlertKind, runbooks_url: str) -> str:
    """The address of the kind's runbook."""
    return f"{runbooks_url.rstrip('/')}/{kind.page}"


def next_command(notice: Notice) -> str:
    """The operator's next command."""
    named = {"tenant": notice.tenant, "fingerprint": notice.fingerprint, "sample": notice.sample_id}
    return notice.about.next_command.format(**{name: shlex.quote(value or "") for name, value in named.items()})


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
