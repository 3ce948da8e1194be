"""Serves the pages of daily reports: `/reports/2026-01-31.html`.

A page is a file of its own with everything in it, so its scripts are inline. It is served in a sandbox: it runs, and
reaches neither the console nor anything else.
"""

import asyncio
import re

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from pipeline_platform import stores
from pipeline_platform.errors import PipelineError
from pipeline_platform.settings import Settings

_NAME = re.compile(r"\d{4}-\d\d-\d\d\.html")
_HEADERS = {
    "Content-Security-Policy": "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:",
}


def report_route(settings: Settings) -> Route:
    """The route of the daily reports, wherever they are written."""

    async def report(request: Request) -> Response:
        name = request.path_params["name"]
        if not _NAME.fullmatch(name):
            return _missing()
        try:
            page = await asyncio.to_thread(stores.read_whole, f"{stores.files_root(settings)}/reports/{name}")
        except PipelineError:
            return _missing()
        return HTMLResponse(page, headers=_HEADERS)

    return Route("/reports/{name}", report)


def _missing() -> Response:
    return PlainTextResponse("no such report: materialize the day of the asset daily_report\n", 404)
