"""A server of ours that is running: where it answers and how it is stopped."""

import signal
import subprocess
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pipeline_platform.local.services.home_files import HomeLock
from pipeline_platform.local.services.process import stop


@dataclass(frozen=True, slots=True)
class Server:
    """A running embedded server, and the lock that says its data are ours. Leaving the context stops it."""

    name: str
    url: str
    # The same server by a socket file, which costs less than loopback: for programs of this machine. `url` where the
    # home has no room for one.
    socket_url: str
    process: subprocess.Popen[bytes]
    lock: HomeLock
    stop_signal: signal.Signals
    stop_grace_s: float

    def stop(self) -> None:
        """Stop it in an orderly way and release its data; harmless when it has ended already."""
        stop(self.process, self.stop_signal, self.stop_grace_s)
        self.lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
