"""What the committers know of the database: whether one of them is connected, and why commits failed lately."""

import time

import psycopg

# After this time without another commit, a failed commit no longer counts as trouble.
_TROUBLE_S = 10.0


class CommitHealth:
    """The state of all committers of one process."""

    def __init__(self) -> None:
        self._connected = 0
        self._tried = False
        self._failed_at = float("-inf")
        self._failure = ""

    @property
    def is_down(self) -> bool:
        """Connecting failed before, and no committer is connected now."""
        return self._tried and not self._connected

    @property
    def trouble(self) -> str:
        """Why events cannot be committed now, as far as the committers know. Empty if they know no reason."""
        is_recent = time.monotonic() - self._failed_at < _TROUBLE_S
        return self._failure if is_recent or self.is_down else ""

    def not_connected(self, error: psycopg.Error) -> None:
        """A committer could not connect."""
        self._tried = True
        if not self._connected:
            self._failure = f"a connection that commits: {error}"

    def connected(self) -> None:
        """A committer has connected."""
        self._failed_at = float("-inf")
        self._connected += 1

    def disconnected(self) -> None:
        """A committer has lost its connection."""
        self._connected -= 1

    def failed(self, error: psycopg.Error) -> None:
        """A commit failed, and not because of its data."""
        self._failed_at, self._failure = time.monotonic(), f"commits: {error.diag.message_primary or error}"

    def committed(self) -> None:
        """A commit succeeded."""
        self._failed_at = float("-inf")
