"""The channels for alerts: those in `alert_urls`, reached through apprise. Their URLs are secret and are not stored.

A channel has failed if it does not answer successfully within apprise's time limits. The caller then retries, and
`pipeline-platform alerts test` shows an operator the reason.
"""

import hashlib
import io
import logging
from dataclasses import dataclass
from typing import Any, cast

import apprise
from apprise.utils.parse import parse_urls  # pyright: ignore[reportUnknownVariableType]

from pipeline_platform.errors import ConfigError
from pipeline_platform.settings import Settings
from pipeline_platform.watch.alerts.catalogue import Severity
from pipeline_platform.watch.alerts.messages import Message

# These open an incident for each message. A message about many alerts could not resolve them.
_KEEP_INCIDENTS = frozenset({"pagerduty", "opsgenie"})
_ERROR_MAX = 300


@dataclass(frozen=True, slots=True)
class Channel:
    """name: its schema and a hash of its URL. The database stores only this name."""

    name: str
    takes_digests: bool
    service: Any

    def send(self, message: Message) -> str | None:
        """Send a message; returns why that failed, or None if it succeeded."""
        kind = apprise.NotifyType.FAILURE if message.severity is Severity.CRITICAL else apprise.NotifyType.WARNING
        with apprise.LogCapture(level=logging.WARNING, fmt="%(message)s") as log:
            taken: bool = self.service.notify(
                body=message.body,
                title=message.title,
                notify_type=apprise.NotifyType.SUCCESS if message.is_over else kind,
                body_format=apprise.NotifyFormat.TEXT,
            )
            said = cast("io.StringIO", log).getvalue().strip()
            return None if taken else said[:_ERROR_MAX] or "not taken"


def channels_of(settings: Settings) -> list[Channel]:
    """All configured channels, once each. ConfigError if apprise does not know one."""
    urls = cast("list[str]", parse_urls(settings.alert_urls))
    return list({channel.name: channel for channel in map(_channel, urls)}.values())


def _channel(url: str) -> Channel:
    schema = url.partition("://")[0].lower()
    service = cast("Any", apprise.Apprise.instantiate(url))  # pyright: ignore[reportUnknownMemberType]
    if service is None:
        raise ConfigError(
            f"PIPELINE_ALERT_URLS: apprise knows no channel for the URL that begins with {schema[:20]}://, or it lacks "
            "a part. See docs/how-to/be-told-of-alerts.md"
        )
    return Channel(f"{schema}#{hashlib.sha256(url.encode()).hexdigest()[:8]}", schema not in _KEEP_INCIDENTS, service)
