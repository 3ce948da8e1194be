"""Serves the pages of daily reports from the home: `/reports/2026-01-31.html`.

A page is a file of its own with everything in it, so its scripts are inline. It is served in a sandbox: it runs, and
reaches neither the console nor anything else.
"""

import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

_NAME = re.compile(r"\d{4}-\d\d-\d\d\.html")
_HEADERS = {
    "Content-Security-Policy": "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:",
}


def report_route(home: Path) -> Route:
    """The route of the daily reports that are in this home."""

    async def report(request: Request) -> Response:
        name = request.path_params["name"]
        path = home / "reports" / name
        if not _NAME.fullmatch(name) or not path.is_file():
            return PlainTextResponse("no such report: materialize the day of the asset daily_report\n", 404)
        return FileResponse(path, media_type="text/html", headers=_HEADERS)

    return Route("/reports/{name}", report)
