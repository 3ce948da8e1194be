"""The requests that wait for a commit, in the order of their arrival. Their events are limited."""

import asyncio
from collections import deque
from dataclasses import dataclass

from pipeline_platform.event.types import Lane
from pipeline_platform.gateway.isolation import Late
from pipeline_platform.gateway.protocol import Judged
from pipeline_platform.gateway.responses import TryLaterError


@dataclass(slots=True)
class Waiting:
    """A request that waits for its commit. Its first result counts; later ones are ignored."""

    lane: Lane
    judged: Judged
    events: int
    done: asyncio.Future[list[Late]]

    def resolve(self, late: list[Late]) -> None:
        """It is durable, except for these events, which only the database rejected."""
        if not self.done.done():
            self.done.set_result(late)

    def refuse(self, error: TryLaterError) -> None:
        """It is not durable, or it is unknown whether it is."""
        if not self.done.done():
            self.done.set_exception(error)


class Pending:
    """Requests until they are resolved or refused. `wake` is set when a committer has to look again."""

    def __init__(self, group_events_max: int, events_max: int) -> None:
        self._group_events_max = group_events_max
        self._events_max = events_max
        self._requests: deque[Waiting] = deque()
        self._events_in_hand = 0
        self.wake = asyncio.Event()

    async def wait(self, lane: Lane, judged: Judged) -> list[Late]:
        """Wait until the request is durable. Raises TryLaterError if it was refused, or if too many events wait."""
        events = len(judged.accepted) + len(judged.rejected)
        if self._events_in_hand and self._events_in_hand + events > self._events_max:
            raise TryLaterError("busy", "too many events wait to be stored: send this again", 1.0)
        done: asyncio.Future[list[Late]] = asyncio.get_running_loop().create_future()
        self._requests.append(Waiting(lane, judged, events, done))
        self._events_in_hand += events
        self.wake.set()
        try:
            return await done
        finally:
            self._events_in_hand -= events

    def take_group(self) -> list[Waiting]:
        """The requests of the lane whose first request waits longest, up to `group_events_max` events."""
        group: list[Waiting] = []
        others: list[Waiting] = []
        events = 0
        while self._requests:
            waiting = self._requests[0]
            if group and events + waiting.events > self._group_events_max:
                break
            self._requests.popleft()
            if waiting.done.done():
                continue
            if group and waiting.lane is not group[0].lane:
                others.append(waiting)
                continue
            group.append(waiting)
            events += waiting.events
        self._requests.extendleft(reversed(others))
        return group

    def refuse_all(self, error: TryLaterError) -> None:
        """Refuse every request that no committer has taken."""
        while self._requests:
            self._requests.popleft().refuse(error)
