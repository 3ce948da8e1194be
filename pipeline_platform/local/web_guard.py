"""Whom a web server on this machine answers: browsers whose page it served itself, and programs.

A browser here obeys any page that it shows, and no page of another site may give orders to a server of ours:

* the name in Host is one of this machine's: with a name of its own a foreign page would count as ours (DNS rebinding);
* what may change something, and every websocket, comes from our own page: a browser says so in Origin and
  Sec-Fetch-Site. Programs send neither header and are answered;
* a body is JSON: browsers send other kinds across sites without asking first;
* no page of another site shows ours in a frame, where clicks could be led.

It keeps nobody out who can send requests from this machine, and is no replacement for a login.
"""

import ipaddress
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_OWN_SITE = ("same-origin", "none")  # none: typed by the person


def is_loopback(host: str) -> bool:
    """Whether a host, as a name or an address without a port, can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(headers: Headers) -> str:
    """The name or the address in Host, without the port; empty where there is none or it cannot be read."""
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


class LocalGuard:
    """Around an app that only this machine uses: refuses what a page of another site may have sent."""

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
            # Before it is accepted: the client gets a 403.
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": refused[1]})
        else:
            await PlainTextResponse(f"{refused[1]}\n", refused[0])(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[HTTPStatus, str] | None:
        """Why it is not answered, with the status; None: it is."""
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
    """Whether the page that sent it was served here, or no browser did."""
    sites = headers.getlist("sec-fetch-site")
    own = (f"http://{headers['host']}", f"https://{headers['host']}")
    return all(site in _OWN_SITE for site in sites) and all(origin in own for origin in headers.getlist("origin"))


def _graphql_by_get(scope: Scope) -> tuple[HTTPStatus, str] | None:
    """A mutation can be in the address: GET without one shows the playground, and nothing else is answered."""
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
