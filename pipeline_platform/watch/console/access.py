"""Access to the console: on loopback without a token, everyone on this machine; else everyone who has the token.

The token is given once in the address (`?token=`) and then kept in a cookie that scripts cannot read, or sent as a
bearer token. On loopback without a token only requests to a name of this machine are answered. This prevents DNS
rebinding: a page of another site cannot read the console under its own name.
"""

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline_platform.errors import ConfigError
from pipeline_platform.local.web_guard import host_of, is_loopback
from pipeline_platform.settings import Settings
from pipeline_platform.watch.console.page import Pages

_COOKIE = "console"
_COOKIE_S = 30 * 86_400
_OPEN = ("/healthz", "/static/")

HEADERS: Mapping[str, str] = {
    # Only resources of this origin, nothing inline.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def check_access(settings: Settings) -> None:
    """ConfigError if the console would be open to everyone."""
    if not settings.console_token and not is_loopback(settings.console_host):
        raise ConfigError(
            f"the console would show everything to whoever reaches {settings.console_host}: set PIPELINE_CONSOLE_TOKEN "
            '(python -c "import secrets; print(secrets.token_urlsafe())"), or PIPELINE_CONSOLE_HOST to 127.0.0.1'
        )


class Guard:
    """Middleware: refuses requests without access, and adds the security headers to every answer."""

    def __init__(self, app: ASGIApp, token: str, pages: Pages) -> None:
        self._app = app
        self._token = token
        self._pages = pages
        # The value of the cookie. It is useless elsewhere, and invalid when the token changes.
        self._cookie = hmac.new(token.encode(), b"pipeline_platform console", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refused = self._refusal(Request(scope))
        await (refused or self._app)(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        """The answer to a request without access; None if it has access."""
        if not self._token:
            host = host_of(request.headers)
            if is_loopback(host):
                return None
            return PlainTextResponse(
                f"the console answers to localhost alone, not to {host!r}: set PIPELINE_CONSOLE_TOKEN\n", 421
            )
        if request.url.path.startswith(_OPEN):
            return None
        given = request.query_params.get("token")
        if given is not None and self._is_token(given):
            return self._welcome(request)
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._is_token(bearer) or _same(request.cookies.get(_COOKIE, ""), self._cookie):
            return None
        text = "That was not the token." if given else "Enter the token of this console."
        return HTMLResponse(self._pages.notice("Console", text, asks_token=True), 401, {"WWW-Authenticate": "Bearer"})

    def _is_token(self, given: str) -> bool:
        return _same(given, self._token)

    def _welcome(self, request: Request) -> Response:
        """A redirect to the same page without the token in its address, with the cookie."""
        rest = [(name, value) for name, value in parse_qsl(request.url.query) if name != "token"]
        path = "/" + request.url.path.lstrip("/")
        answer = RedirectResponse(f"{path}?{urlencode(rest)}" if rest else path, 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(_COOKIE, self._cookie, _COOKIE_S, httponly=True, samesite="lax", secure=secure)
        return answer


def _same(one: str, other: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())
