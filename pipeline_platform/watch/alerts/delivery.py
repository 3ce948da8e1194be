"""Sends opened and resolved alerts from the outbox in PostgreSQL to every channel.

Only one process delivers at a time. A channel that fails is retried without limit; the wait doubles up to five minutes.
Other channels do not wait for it. Delivery is at-least-once: if the process dies after a channel's answer and before
its commit, the notification is sent again.
"""

import time
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.rows import class_row

from pipeline_platform.db import queries
from pipeline_platform.settings import Settings
from pipeline_platform.watch.alerts.channels import Channel
from pipeline_platform.watch.alerts.messages import Message, Notice, digest_of, message_of

_SQL = queries("alerts")
Conn = psycopg.Connection[Any]

# More alerts than this at once are sent as one list.
_SINGLE_MAX = 3
_WAIT_S, _WAIT_MAX_S = 0.5, 300.0
_PRUNE_EVERY_S = 3600.0


class Delivery:
    """The outbox and its channels."""

    def __init__(self, settings: Settings, channels: Sequence[Channel]) -> None:
        self._settings = settings
        self._channels = {channel.name: channel for channel in channels}
        self._names = {"channels": list(self._channels)}
        self._prune_at = 0.0

    def begin(self, conn: Conn) -> bool:
        """Take the lock of delivery for the life of `conn`; False while another process has it."""
        if conn.execute(_SQL["deliver_alone"]).fetchone() != (True,):
            return False
        conn.execute(_SQL["forget_channels"], self._names)
        return True

    def deliver(self, conn: Conn) -> None:
        """Send the due notifications to their channels."""
        conn.execute(_SQL["address"], self._names)
        for (name,) in conn.execute(_SQL["due"], self._names).fetchall():
            self._send_all(conn, self._channels[name])
        if time.monotonic() >= self._prune_at:
            self._prune_at = time.monotonic() + _PRUNE_EVERY_S
            conn.execute(_SQL["prune"])

    def _send_all(self, conn: Conn, channel: Channel) -> None:
        with conn.cursor(row_factory=class_row(Notice)) as cursor:
            notices = cursor.execute(_SQL["to_send"], {"channel": channel.name}).fetchall()
        for message in self._messages(channel, notices):
            error = channel.send(message)
            if error is not None:
                waits = {"wait_s": _WAIT_S, "wait_max_s": _WAIT_MAX_S}
                conn.execute(_SQL["failed"], {"channel": channel.name, "error": error, **waits})
                return
            conn.execute(_SQL["sent"], {"channel": channel.name, "ids": list(message.ids)})

    def _messages(self, channel: Channel, notices: Sequence[Notice]) -> list[Message]:
        if channel.takes_digests and len(notices) > _SINGLE_MAX:
            return [digest_of(notices)]
        return [message_of(notice, self._settings.alert_runbooks_url) for notice in notices]
