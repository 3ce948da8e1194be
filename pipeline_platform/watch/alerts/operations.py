"""Open and past alerts with their notifications, for operators. Operators can also resolve an alert by hand."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipeline_platform.audit_log import note
from pipeline_platform.db import queries
from pipeline_platform.errors import ConfigError, NoSuchThingError
from pipeline_platform.settings import Settings
from pipeline_platform.watch.alerts.catalogue import CATALOGUE, Severity, about
from pipeline_platform.watch.alerts.messages import Message, Notice, message_of, next_command, runbook

_SQL = queries("alerts")
Conn = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """One channel's answer to a sample. error: None if it was accepted."""

    channel: str
    error: str | None


def list_alerts(
    conn: Conn,
    settings: Settings,
    *,
    everything: bool = False,
    alert_id: int | None = None,
    kind: str | None = None,
    tenant: str | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """Open alerts, or all, with severity, runbook and next command; open ones first, then the newest."""
    if kind is not None and kind not in CATALOGUE:
        raise ConfigError(f"no kind {kind!r} of alert; there are: {', '.join(CATALOGUE)}")
    asked = {"all": everything, "alert_id": alert_id, "kind": kind, "tenant": tenant, "limit": limit}
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_SQL["list"], asked).fetchall()
    return [_with_catalogue(row, settings) for row in rows]


def show_alert(conn: Conn, settings: Settings, alert_id: int) -> dict[str, Any]:
    """One alert, with its notifications by channel and time. NoSuchThingError if it does not exist."""
    found = list_alerts(conn, settings, everything=True, alert_id=alert_id)
    if not found:
        raise NoSuchThingError(f"there is no alert {alert_id}")
    with conn.cursor(row_factory=dict_row) as cursor:
        told = cursor.execute(_SQL["deliveries"], {"alert_id": alert_id}).fetchall()
    return found[0] | {"deliveries": told}


def resolve_alert(conn: Conn, alert_id: int, reason: str) -> None:
    """Resolve an alert whose end cannot be detected. A cause that persists opens another alert. Audited."""
    with conn.transaction():
        resolved = conn.execute(_SQL["resolve"], {"alert_id": alert_id}).fetchone()
        if resolved is None:
            raise NoSuchThingError(f"there is no open alert {alert_id}")
        note(conn, "alerts resolve", reason, {"alert_id": alert_id, "kind": resolved[0]})


def try_channels(settings: Settings) -> list[Answer]:
    """Send a sample through every channel. ConfigError if none is configured."""
    # Importing apprise takes longer than most commands.
    from pipeline_platform.watch.alerts.channels import channels_of

    channels = channels_of(settings)
    if not channels:
        raise ConfigError("no channel is configured: set PIPELINE_ALERT_URLS")
    body = f"This is a test of the channel, sent at {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC. Nothing is wrong."
    sample = Message("pipeline-platform: a test", body, Severity.WARNING, True, ())
    return [Answer(channel.name, channel.send(sample)) for channel in channels]


def as_message(alert: dict[str, Any], settings: Settings) -> Message:
    """The alert as a message for the channels."""
    return message_of(_notice(alert), settings.alert_runbooks_url)


def _with_catalogue(row: dict[str, Any], settings: Settings) -> dict[str, Any]:
    kind = about(row["kind"])
    return row | {
        "severity": kind.severity.value,
        "title": kind.title,
        "runbook": runbook(kind, settings.alert_runbooks_url),
        "next": next_command(_notice(row)),
    }


def _notice(alert: dict[str, Any]) -> Notice:
    fields = {name: alert[name] for name in Notice.__dataclass_fields__ if name in alert}
    return Notice(**fields, notification_id=0, change="resolved" if alert["resolved_at"] else "opened")
