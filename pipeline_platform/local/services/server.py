"""A running embedded server: its addresses and how to stop it."""

import signal
import subprocess
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pipeline_platform.local.services.home_files import HomeLock
from pipeline_platform.local.services.process import stop


@dataclass(frozen=True, slots=True)
class Server:
    """A running embedded server, and the lock on its data. Leaving the context stops it."""

    name: str
    url: str
    # The same server through a socket file, which costs less than loopback, for programs on this machine. Equals `url`
    # if no socket can be created in the home.
    socket_url: str
    process: subprocess.Popen[bytes]
    lock: HomeLock
    stop_signal: signal.Signals
    stop_grace_s: float

    def stop(self) -> None:
        """Stop the server in an orderly way and release its data. Harmless if it has already ended."""
        stop(self.process, self.stop_signal, self.stop_grace_s)
        self.lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
