"""The demo's platform, started anew in ``home/demo``, which only the demo uses.

Processes and files of an earlier demo are stopped and removed. The user's own servers and data are never touched:
settings that name them are not passed on.
"""

import contextlib
import io
import shutil
import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from pipeline_platform.connections import forget_libpq_variables
from pipeline_platform.errors import ServiceError
from pipeline_platform.local.services import Endpoints, read_endpoints
from pipeline_platform.local.services.process import try_port
from pipeline_platform.local.supervisor.detach import up_detached
from pipeline_platform.local.supervisor.run import down
from pipeline_platform.settings import Settings

# Parity is required for nearly all of the shadow run. The watch lasts for most of the evening after the cutover.
_PARITY_S = 55.0
_WATCH_S = 30.0
# A machine that plays the clients and both pipelines at once is slower than production may be. The report has the
# latency that was measured.
_LATENCY_MS_MAX = 10_000.0


def settings_of_demo(settings: Settings, scale: float = 1.0) -> Settings:
    """The user's settings, except the demo's own ones: home, servers, free ports, and hours that last seconds.

    The Dagster UI keeps its usual port if that is free. scale: of the traffic, as in `traffic.acts`.
    """
    own = {
        "home": (settings.home / "demo").resolve(),
        "database_url": "",
        "redis_url": "",
        "gateway_port": 0,
        "legacy_port": 0,
        "console_port": 0,
        "parity_h": _PARITY_S * scale / 3600,
        "cutover_watch_h": _WATCH_S * scale / 3600,
        "latency_p95_ms_max": _LATENCY_MS_MAX,
        "dagster_port": settings.dagster_port if _is_free(settings.dagster_port) else 0,
    }
    return settings.model_copy(update=own)


@contextmanager
def running_platform(settings: Settings) -> Generator[Endpoints]:
    """Start everything in an empty home; stop it when the context ends. ServiceError if it cannot start."""
    forget_libpq_variables()
    with _signals_as_interrupts():
        _remove_earlier(settings)
        settings.home.mkdir(parents=True)
        # The summary of `up` suggests other next steps than the demo.
        with contextlib.redirect_stdout(io.StringIO()):
            code = up_detached(settings, dagster=True, legacy=True)
        endpoints = read_endpoints(settings.home)
        if code or endpoints is None:
            raise ServiceError(f"the demo's platform does not start: see {settings.home / 'logs'}")
        try:
            yield endpoints
        finally:
            down(settings)


def _remove_earlier(settings: Settings) -> None:
    if settings.home.exists():
        down(settings)
        shutil.rmtree(settings.home)


def _is_free(port: int) -> bool:
    try:
        try_port("127.0.0.1", port)
    except OSError:
        return False
    return True


@contextmanager
def _signals_as_interrupts() -> Generator[None]:
    """A closed terminal and SIGTERM stop the demo as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
