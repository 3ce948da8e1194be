"""One simulated day of 400 tenants, compressed into minutes, as a plan: the same seed makes the same requests.

Pure: no network, no clock. Rates are shares of the old pipeline's capacity, so the plan is valid on every machine. The
events' own times are those of the simulated day, not of the run.
"""

import json
import math
import random
import uuid
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any

TENANTS = 400
_DAY = datetime(2026, 3, 2, tzinfo=UTC)
_USERS = 4_000
_ZIPF = 0.9  # the largest tenant has about an eighth of the events, the last half of them a tenth
_REQUEST_EVENTS_MAX = 20
_REQUEST_EVENTS_TYPICAL = 4.0
_UNKNOWN_VISITORS = 0.25

_FEATURES = ("Export", "Filter", "Share", "Dashboard", "Alert Rule", "Bulk Edit", "Search", "Comment")
_PAGES = ("/", "/pricing", "/login", "/reports", "/reports/weekly", "/settings", "/settings/team", "/docs/api")
_ROUTES = ("GET /v2/items", "POST /v2/items", "GET /v2/reports", "PATCH /v2/items/:id", "DELETE /v2/items/:id")
_COUNTRIES = ("DE", "US", "FR", "JP", "BR", "IN", "GB", "PL")
_AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:127.0) Gecko/20100101 Firefox/127.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the day: from `hour` on, `hours` long, played in `seconds`.

    Its load changes evenly from one share of the old pipeline's capacity to another.
    """

    name: str
    hour: float
    hours: float
    seconds: float
    load_from: float
    load_to: float


@dataclass(frozen=True, slots=True)
class Request:
    """One request of one tenant, due `at_s` seconds after the act began."""

    at_s: float
    stretch: str
    tenant: int
    events: int
    body: bytes


def acts(peak_factor: float, scale: float = 1.0) -> dict[str, tuple[Stretch, ...]]:
    """The day, by act of the story. scale: 1 is the whole demo, less is shorter; loads stay as they are."""

    def part(name: str, hour: float, hours: float, seconds: float, load_from: float, load_to: float) -> Stretch:
        return Stretch(name, hour, hours, seconds * scale, load_from, load_to)

    return {
        "legacy_only": (part("night", 0, 6, 6, 0.1, 0.1), part("morning", 6, 3, 12, 0.1, 0.6)),
        "shadow": (
            part("forenoon", 9, 2, 6, 0.6, 0.8),
            part("peak", 11, 5, 50, peak_factor, peak_factor),
            part("afternoon", 16, 2, 8, 0.6, 0.5),
        ),
        "cutover": (part("evening", 18, 4, 40, 0.5, 0.3),),
        "legacy_off": (part("late evening", 22, 2, 6, 0.3, 0.1),),
    }


def requests(stretches: Sequence[Stretch], capacity_per_s: float, seed: int) -> Iterator[Request]:
    """The requests of one act in the order they are due. capacity_per_s: of the old pipeline, in events.

    The gap of a request is proportional to its size, plus or minus 80%. So gaps vary, but each stretch has the planned
    load with every seed. (With exponential gaps the peak's load varied by 5% between seeds, which alone changed the old
    pipeline's losses by a fifth.)
    """
    choose = random.Random(f"{seed}/{stretches[0].name}")  # noqa: S311
    pick_tenant, pick_size = _tenants(choose), _sizes(choose)
    begin = 0.0
    for stretch in stretches:
        at = begin
        while True:
            share = _load(stretch, (at - begin) / stretch.seconds)
            tenant, size = pick_tenant(), pick_size()
            at += size / (share * capacity_per_s) * choose.uniform(0.2, 1.8)
            if at >= begin + stretch.seconds:
                break
            moment = _DAY + timedelta(hours=stretch.hour + stretch.hours * (at - begin) / stretch.seconds)
            events = [_event(choose, tenant, moment + timedelta(milliseconds=120 * n)) for n in range(size)]
            body = json.dumps({"batch": events}, separators=(",", ":")).encode()
            yield Request(at, stretch.name, tenant, size, body)
        begin += stretch.seconds


def planned_events(stretches: Sequence[Stretch], capacity_per_s: float) -> int:
    """The approximate number of events of an act, for a progress bar."""
    return round(sum((part.load_from + part.load_to) / 2 * part.seconds for part in stretches) * capacity_per_s)


def _load(stretch: Stretch, share_of_time: float) -> float:
    return stretch.load_from + (stretch.load_to - stretch.load_from) * share_of_time


def _weights() -> list[float]:
    weights = [1 / rank**_ZIPF for rank in range(1, TENANTS + 1)]
    return [weight / sum(weights) for weight in weights]


def _tenants(choose: random.Random) -> Callable[[], int]:
    bounds = list(accumulate(_weights()))
    return lambda: min(bisect(bounds, choose.random()), TENANTS - 1)


def _sizes(choose: random.Random) -> Callable[[], int]:
    bounds = list(accumulate(_size_weights()))
    return lambda: bisect(bounds, choose.random() * bounds[-1]) + 1


def _size_weights() -> list[float]:
    return [math.exp(-size / _REQUEST_EVENTS_TYPICAL) for size in range(1, _REQUEST_EVENTS_MAX + 1)]


def _event(choose: random.Random, tenant: int, at: datetime) -> dict[str, Any]:
    users = max(3, round(_USERS * _WEIGHTS[tenant]))
    user = choose.randrange(users)
    event: dict[str, Any] = {
        "messageId": str(uuid.UUID(int=choose.getrandbits(128), version=4)),
        "timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "userId": f"user-{user}",
        "context": {"library": {"name": "demo", "version": "1.0"}, "userAgent": choose.choice(_AGENTS)},
    }
    (kind,) = choose.choices(_KINDS, _SHARES)
    return event | kind(choose, event, user)


def _page(choose: random.Random, event: dict[str, Any], user: int) -> dict[str, Any]:
    path = choose.choice(_PAGES)
    if choose.random() < _UNKNOWN_VISITORS:
        del event["userId"]
    properties = {
        "path": path,
        "url": f"https://app.example.com{path}",
        "referrer": choose.choice(("", "https://www.example.org/search")),
        "load_ms": choose.randint(80, 2_400),
    }
    return {"type": "page", "name": path, "anonymousId": f"visitor-{user}", "properties": properties}


def _feature_used(choose: random.Random, _event: dict[str, Any], _user: int) -> dict[str, Any]:
    properties = {
        "feature": choose.choice(_FEATURES),
        "duration_ms": choose.randint(5, 9_000),
        "items": choose.randint(0, 40),
        "succeeded": choose.random() < 0.97,
    }
    return {"type": "track", "event": "Feature Used", "properties": properties}


def _api_called(choose: random.Random, _event: dict[str, Any], _user: int) -> dict[str, Any]:
    properties = {
        "route": choose.choice(_ROUTES),
        "status": choose.choice((200, 200, 200, 201, 404, 500)),
        "ms": round(choose.lognormvariate(3.5, 0.8), 1),
        "bytes": choose.randint(120, 60_000),
    }
    return {"type": "track", "event": "API Called", "properties": properties}


def _identify(choose: random.Random, _event: dict[str, Any], user: int) -> dict[str, Any]:
    traits = {
        "name": f"User {user}",
        "role": choose.choice(("admin", "editor", "viewer")),
        "country": choose.choice(_COUNTRIES),
    }
    return {"type": "identify", "traits": traits}


def _group(choose: random.Random, _event: dict[str, Any], user: int) -> dict[str, Any]:
    traits = {"industry": choose.choice(("retail", "health", "games", "press")), "seats": choose.randint(1, 500)}
    return {"type": "group", "groupId": f"account-{user % 7}", "traits": traits}


_WEIGHTS = _weights()
_KINDS = (_page, _feature_used, _api_called, _identify, _group)
_SHARES = (0.40, 0.30, 0.24, 0.04, 0.02)
