"""The real SDKs, used as their users do: every call, with values that travel badly."""

import importlib.metadata
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import rudderstack.analytics.client as rudder
import segment.analytics.client as segment

SDKS = {"segment": "segment-analytics-python", "rudder": "rudder-sdk-python"}
TYPES = ["identify", "track", "page", "screen", "group", "alias"]
AT = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)


def version(sdk: str) -> str:
    return importlib.metadata.version(SDKS[sdk])


def make_client(sdk: str, url: str, write_key: str, errors: list[Any], **options: Any) -> Any:
    """A client of the SDK; what it could not deliver goes to `errors`."""
    make: Callable[..., Any] = {"segment": segment.Client, "rudder": rudder.Client}[sdk]

    def on_error(error: Exception, items: Any) -> None:
        errors.append((error, items))

    return make(write_key=write_key, host=url, on_error=on_error, **options)


def call_everything(client: Any) -> list[str]:
    """All six calls; returns the messageIds in their order."""
    context = {"ip": "83.149.9.0", "locale": "pt-BR", "nested": {"deep": [1, {"er": None}]}}
    made = [
        client.identify("user-1", {"email": "zoë@example.com", "plan": "pro", "logins": 2**70}, context),
        client.track("user-1", "Order Placed", {"total": 12.5, "note": "naïve 😀 \x01", "big": 2**64}, context, AT),
        client.page(anonymous_id="anon-1", category="Docs", name="Home", properties={"url": "https://shop.example/"}),
        client.screen(17, name="Main", properties={"tags": ["a", "b"], "none": None}),
        client.group("user-1", "group-9", {"name": "Acme", "seats": 5}),
        client.alias("anon-1", "user-1"),
    ]
    return [message["messageId"] for _, message in made]
