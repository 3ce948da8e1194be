"""Sends the traffic of each act, as all tenants together, and notes what was acknowledged."""

from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import urlsplit

from pipeline_platform.lab.demo.figures import Conn
from pipeline_platform.lab.demo.playing import Played, Playing
from pipeline_platform.lab.demo.report import Span
from pipeline_platform.lab.demo.screen import Screen
from pipeline_platform.lab.demo.traffic import TENANTS, acts, planned_events
from pipeline_platform.migration.simulation.capacity import PEAK_FACTOR
from pipeline_platform.tenants.tenants import add_tenant


class Sending:
    """The senders of one demo. Adds the tenants. acknowledged: events; spans: when each act was sent."""

    def __init__(self, conn: Conn, screen: Screen, gateway: str, *, seed: int, scale: float, capacity: float) -> None:
        self._screen = screen
        self._port = urlsplit(gateway).port
        self._seed = seed
        self._scale = scale
        self._capacity_per_s = capacity
        self.acknowledged = 0
        self.spans: list[Span] = []
        with conn.transaction():
            self._write_keys = [add_tenant(conn, f"tenant-{number:03}").write_key for number in range(1, TENANTS + 1)]

    @contextmanager
    def traffic(self, act: str) -> Generator[Playing]:
        """Start this act's traffic; when the context ends, all of it was sent."""
        stretches = acts(PEAK_FACTOR, self._scale)[act]
        order = {
            "act": act,
            "seed": self._seed,
            "scale": self._scale,
            "peak_factor": PEAK_FACTOR,
            "capacity_per_s": self._capacity_per_s,
            "port": self._port,
            "write_keys": self._write_keys,
        }
        with Playing(order) as playing:
            self._screen.follow(playing, planned_events(stretches, self._capacity_per_s))
            yield playing
            played = playing.result()
        self._screen.follow(None)
        self._note(act, played)

    def send(self, act: str) -> Played:
        """Send all of this act's traffic."""
        with self.traffic(act) as playing:
            return playing.result()

    def _note(self, act: str, played: Played) -> None:
        self.acknowledged += played.acknowledged
        self.spans.append(Span(act, played.stretches[0].begin, played.stretches[-1].end))
        others = {answer: count for answer, count in played.statuses.items() if answer != "200"}
        if others:
            self._screen.say(f"requests that were not acknowledged: {others}", good=False)
