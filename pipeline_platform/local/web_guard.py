"""Protects a local web server: it answers only programs and browsers with a page that it served itself.

A page of another site can make a browser on this machine send requests to the server. The guard requires:

* Host is a name of this machine. Otherwise a page of another site could pass as ours (DNS rebinding);
* requests that may change something, and websockets, come from our own page. Browsers state this in Origin and
  Sec-Fetch-Site. Programs send neither header and are answered;
* a body is JSON. Browsers send other types across sites without a preflight request;
* pages of other sites do not show ours in a frame (clickjacking).

It does not restrict programs on this machine, and does not replace a login.
"""

import ipaddress
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_OWN_SITE = ("same-origin", "none")  # none: typed by the user


def is_loopback(host: str) -> bool:
    """Whether a host (name or address without a port) can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(headers: Headers) -> str:
    """The name or the address in Host, without the port; empty if it is missing or invalid."""
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


class LocalGuard:
    """Middleware of an app that only this machine uses: refuses requests that a page of another site may have sent."""

    def __init__(self, app: ASGIApp, what: str) -> None:
        self._app = app
        self._what = what

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refused = self._refusal(scope, Headers(scope=scope))
        if refused is None:
            await self._app(scope, receive, _without_frames(send))
        elif scope["type"] == "websocket":
            # Closed before it is accepted, so the client gets a 403.
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": refused[1]})
        else:
            await PlainTextResponse(f"{refused[1]}\n", refused[0])(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[HTTPStatus, str] | None:
        """The reason for a refusal, with the status; None: not refused."""
        if not is_loopback(host_of(headers)):
            return HTTPStatus.MISDIRECTED_REQUEST, (
                f"{self._what} answers to localhost and 127.0.0.1 alone, not to {headers.get('host', '')!r}: "
                "from another machine use a tunnel (ssh -L)"
            )
        if scope["type"] == "http" and scope["method"] in _SAFE_METHODS:
            return _graphql_by_get(scope)
        if not _is_own_page(headers):
            return HTTPStatus.FORBIDDEN, f"{self._what} takes this only from its own pages and from programs"
        if scope["type"] == "http" and _media_type(headers) != "application/json":
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send this with Content-Type: application/json"
        return None


def _is_own_page(headers: Headers) -> bool:
    """Whether the request comes from a page that was served here, or not from a browser."""
    sites = headers.getlist("sec-fetch-site")
    own = (f"http://{headers['host']}", f"https://{headers['host']}")
    return all(site in _OWN_SITE for site in sites) and all(origin in own for origin in headers.getlist("origin"))


def _graphql_by_get(scope: Scope) -> tuple[HTTPStatus, str] | None:
    """Refuse GraphQL in the address, which may be a mutation. A GET without a query shows the playground."""
    is_asked = scope["path"].rstrip("/").endswith("/graphql") and scope["query_string"]
    return (HTTPStatus.METHOD_NOT_ALLOWED, "GraphQL is asked by POST here") if is_asked else None


def _media_type(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _without_frames(send: Send) -> Send:
    async def send_guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["X-Frame-Options"] = "SAMEORIGIN"
        await send(message)

    return send_guarded
