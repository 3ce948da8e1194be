"""`GET /metrics`, as routes that any Starlette application mounts: of the platform, and of the processes of a home."""

import threading
import time
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.metrics.processes import directory
from pipeline_platform.telemetry.metrics.scrape import Platform

# Whoever asks more often than this gets the same answer again: asking costs the database the same however many ask.
_FRESH_S = 1.0


def metrics_route(settings: Settings, path: str = "/metrics") -> Route:
    """The route; connects at the first scrape. Text or OpenMetrics, as it is asked for. settings: of what runs."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Platform(settings))
    turn = threading.Lock()
    kept: dict[str, tuple[float, bytes]] = {}

    # Not async: Starlette runs it in a thread, so that the server's loop goes on while PostgreSQL answers.
    def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        with turn:
            at, text = kept.get(content_type, (float("-inf"), b""))
            if time.monotonic() - at > _FRESH_S:
                text = encode(registry)
                kept[content_type] = time.monotonic(), text
        return Response(text, media_type=content_type)

    return Route(path, metrics)


def processes_route(home: Path, path: str = "/metrics") -> Route:
    """Serves what all processes of `home` counted. No tenant is named in it."""

    # Not async: it reads files, in a thread.
    def metrics(request: Request) -> Response:
        registry = CollectorRegistry(auto_describe=False)
        MultiProcessCollector(registry, str(directory(home)))
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=content_type)

    return Route(path, metrics)
