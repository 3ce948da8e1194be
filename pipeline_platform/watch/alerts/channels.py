"""The channels that alerts go to: what `alert_urls` names, spoken to by apprise. Their URLs are secret: none is stored.

A channel that does not answer within apprise's own time limits, or not with success, has failed: the caller tries
again, and an operator sees why with `pipeline-platform alerts test`.
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

# What these are told becomes an incident each, which a message about many could not resolve.
_KEEP_INCIDENTS = frozenset({"pagerduty", "opsgenie"})
_ERROR_MAX = 300


@dataclass(frozen=True, slots=True)
class Channel:
    """name: its schema and a hash of its URL, by which the database knows it."""

    name: str
    takes_digests: bool
    service: Any

    def send(self, message: Message) -> str | None:
        """Say it; returns why that failed, None where it was taken."""
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
    """All that are configured, once each. ConfigError where one is no channel of apprise's."""
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
