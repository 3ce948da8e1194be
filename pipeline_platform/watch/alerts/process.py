"""The process that checks conditions and delivers alerts. It needs PostgreSQL, and alerts when that is unreachable.

It needs neither Dagster nor the workers. A second process also checks, and delivers when the first has ended. While it
works it requests `alert_heartbeat_url`, so that an external dead-man switch notices when it stops.
"""

import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg

from pipeline_platform.db import connect, queries
from pipeline_platform.errors import is_transient
from pipeline_platform.settings import Settings
from pipeline_platform.watch.alerts.catalogue import Kind
from pipeline_platform.watch.alerts.channels import channels_of
from pipeline_platform.watch.alerts.conditions import Looker
from pipeline_platform.watch.alerts.delivery import Delivery
from pipeline_platform.watch.alerts.messages import Notice, message_of

_LOG = logging.getLogger(__name__)
_SQL = queries("alerts")
Conn = psycopg.Connection[Any]

_WAIT_S = 1.0
_HEARTBEAT_TIMEOUT_S = 10.0


class Alerter:
    """Runs until `stop`. ConfigError if a channel cannot be used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._channels = channels_of(settings)
        self._looker = Looker(settings)
        self._beat_at = 0.0
        self._away_since: datetime | None = None
        self._told_away: set[str] = set()

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        """Check and deliver; survives outages of PostgreSQL."""
        while not self._stopping.is_set():
            try:
                with connect(self._settings.database_url, "alerts", lock_timeout_s=5) as conn:
                    self._run_connected(conn)
            except psycopg.Error as error:
                if not is_transient(error):
                    raise
                _LOG.warning("PostgreSQL cannot serve (%s); waiting", str(error).strip())
                self._tell_away()
                self._stopping.wait(_WAIT_S)

    def _run_connected(self, conn: Conn) -> None:
        delivery = Delivery(self._settings, self._channels)
        delivers = False
        look_at = 0.0
        while not self._stopping.is_set():
            if not delivers:
                delivers = delivery.begin(conn)
            if self._away_since:
                self._tell_back(conn)
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + self._settings.alert_every_s
                self._looker.look(conn)
            if delivers:
                delivery.deliver(conn)
            self._beat()
            self._stopping.wait(min(_WAIT_S, self._settings.alert_every_s))

    def _tell_away(self) -> None:
        """Notify each channel directly, once: PostgreSQL cannot store this alert."""
        now = datetime.now(UTC)
        self._away_since = self._away_since or now
        if now - self._away_since < timedelta(seconds=self._settings.alert_database_away_s):
            return
        notice = Notice(
            0, "opened", None, Kind.DATABASE_AWAY, Kind.DATABASE_AWAY, None, _AWAY, 1, self._away_since, None, None
        )
        message = message_of(notice, self._settings.alert_runbooks_url)
        for channel in self._channels:
            if channel.name not in self._told_away and channel.send(message) is None:
                self._told_away.add(channel.name)

    def _tell_back(self, conn: Conn) -> None:
        """PostgreSQL answers again: store the outage, and notify the channels that were told of it."""
        if self._told_away:
            with conn.transaction():
                row = {"kind": Kind.DATABASE_AWAY.value, "message": _AWAY, "since": self._away_since}
                (alert_id,) = conn.execute(_SQL["was_away"], row).fetchone() or (None,)
                conn.execute(_SQL["told"], {"alert_id": alert_id, "told": list(self._told_away)})
        self._away_since = None
        self._told_away.clear()

    def _beat(self) -> None:
        if not self._settings.alert_heartbeat_url or time.monotonic() < self._beat_at:
            return
        self._beat_at = time.monotonic() + self._settings.alert_heartbeat_s
        try:
            httpx.get(self._settings.alert_heartbeat_url, timeout=_HEARTBEAT_TIMEOUT_S).raise_for_status()
        except httpx.HTTPError as error:
            # No alert from here: the external dead-man switch alerts when a heartbeat is missing.
            _LOG.warning("the heartbeat was not taken: %s", type(error).__name__)


_AWAY = "PostgreSQL does not answer: nothing is accepted, clients are told to try again later"
