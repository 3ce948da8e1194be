"""`GET /metrics` as routes for any Starlette application: of the platform, and of the processes of a home."""

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

# Within this time the same answer is returned, so the load on the database does not depend on the number of requests.
_FRESH_S = 1.0


def metrics_route(settings: Settings, path: str = "/metrics") -> Route:
    """The route; connects at the first scrape. Text or OpenMetrics, as requested. settings: of the running platform."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Platform(settings))
    turn = threading.Lock()
    kept: dict[str, tuple[float, bytes]] = {}

    # Not async: Starlette runs it in a thread, so that the server's loop is not blocked while PostgreSQL answers.
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
    """Serves the counts of all processes of `home`. They contain no tenant."""

    # Not async: it reads files, so it runs in a thread.
    def metrics(request: Request) -> Response:
        registry = CollectorRegistry(auto_describe=False)
        MultiProcessCollector(registry, str(directory(home)))
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=content_type)

    return Route(path, metrics)
