"""The console's app: its routes. `Guard` controls access to all of them."""

import asyncio
import contextlib
import functools
import gzip
import hashlib
import logging
import signal
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path

import plotly
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.metrics.endpoint import metrics_route
from pipeline_platform.watch.console.access import Guard, check_access
from pipeline_platform.watch.console.page import Pages
from pipeline_platform.watch.console.reports import report_route
from pipeline_platform.watch.console.watch import Watch

_LOG = logging.getLogger(__name__)
_VIEWERS_MAX = 200
_NAME_BYTES_MAX = 800  # 200 characters, the table's limit
_PING_S = 15
_SEND_S = 20.0
_STATIC = Path(__file__).parent / "static"
# From the installed package, not from this project.
_PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
_FILES = {
    "console.css": (_STATIC / "console.css", "text/css"),
    "console.js": (_STATIC / "console.js", "text/javascript"),
    "plotly.min.js": (_PLOTLY, "text/javascript"),
}


def app_of(settings: Settings) -> Starlette:
    """The app, with its loop. ConfigError if the console would be open to everyone without a token."""
    check_access(settings)
    files = {name: _File(path, kind) for name, (path, kind) in _FILES.items()}
    pages = Pages(settings, {name: f"/static/{name}?v={file.version}" for name, file in files.items()})
    watch = Watch(settings, pages)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        running = asyncio.create_task(watch.run())
        running.add_done_callback(_end_with)
        yield
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    guard = Middleware(Guard, token=settings.console_token, pages=pages)
    routes = [*_routes(watch, pages, files), report_route(settings), metrics_route(settings)]
    return Starlette(routes=routes, lifespan=lifespan, middleware=[guard])


def _end_with(loop: asyncio.Task[None]) -> None:
    """End the process if its loop died, so that it is restarted: the page would only show old numbers."""
    if not loop.cancelled() and (error := loop.exception()):
        _LOG.critical("the console cannot go on", exc_info=error)
        signal.raise_signal(signal.SIGTERM)


def _routes(watch: Watch, pages: Pages, files: dict[str, "_File"]) -> list[Route]:
    return [
        Route("/", partial(_page, watch, pages)),
        Route("/tenants/{tenant:path}", partial(_page, watch, pages)),
        Route("/events", partial(_events, watch)),
        Route("/static/{name}", partial(_static, files)),
        Route("/healthz", _healthz),
    ]


async def _page(watch: Watch, pages: Pages, request: Request) -> Response:
    tenant = _tenant(request)
    sections = await watch.page(tenant) if _can_be(tenant) else None
    if sections is None:
        return HTMLResponse(pages.notice("No such tenant", f"There is no tenant {tenant!r}."), 404)
    return HTMLResponse(pages.whole(sections, tenant))


async def _events(watch: Watch, request: Request) -> Response:
    """The changes of a view, as server-sent events, until the client disconnects."""
    tenant = _tenant(request)
    if watch.viewers >= _VIEWERS_MAX:
        return PlainTextResponse(f"{_VIEWERS_MAX} pages are open already\n", 503, {"Retry-After": "10"})
    if not _can_be(tenant) or await watch.page(tenant) is None:
        return PlainTextResponse("no such tenant\n", 404)

    async def messages() -> AsyncGenerator[bytes]:
        async with watch.follow(tenant) as changes:
            async for message in changes:
                yield message

    return EventSourceResponse(messages(), ping=_PING_S, send_timeout=_SEND_S)


async def _static(files: dict[str, "_File"], request: Request) -> Response:
    file = files.get(request.path_params["name"])
    if file is None:
        return PlainTextResponse("no such file\n", 404)
    return file.answer(request)


async def _healthz(_request: Request) -> Response:
    """200 while the console serves. The page, not this answer, says whether PostgreSQL is reachable."""
    return PlainTextResponse("ok\n")


def _tenant(request: Request) -> str | None:
    """The tenant in the address: /tenants/NAME or ?tenant=NAME; None: all."""
    return request.path_params.get("tenant") or request.query_params.get("tenant") or None


def _can_be(tenant: str | None) -> bool:
    """Whether PostgreSQL can store the name. An invalid name must not look like an unreachable PostgreSQL."""
    if tenant is None:
        return True
    try:
        return "\0" not in tenant and len(tenant.encode()) <= _NAME_BYTES_MAX
    except UnicodeEncodeError:
        return False


class _File:
    """A served file, read once, and compressed at the first request."""

    def __init__(self, path: Path, kind: str) -> None:
        self._plain = path.read_bytes()
        self._kind = kind
        self.version = hashlib.sha256(self._plain).hexdigest()[:12]

    @functools.cached_property
    def _gzipped(self) -> bytes:
        return gzip.compress(self._plain, mtime=0)

    def answer(self, request: Request) -> Response:
        """The file. Browsers may cache it forever: its address contains the version."""
        headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(self._plain, media_type=self._kind, headers=headers)
        return Response(self._gzipped, media_type=self._kind, headers=headers | {"Content-Encoding": "gzip"})
