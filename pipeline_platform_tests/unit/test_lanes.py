"""Shares and caps of the lanes, over simulated time."""

import random

import pytest

from pipeline_platform.event.types import Lane
from pipeline_platform.settings import Settings
from pipeline_platform.worker.lanes import LaneShares

_DEFAULTS = Settings()
_SHARES = _DEFAULTS.lane_shares
_CAPS = _DEFAULTS.lane_caps
_FREE = dict.fromkeys(_CAPS, 1.0)


class Simulation:
    """One worker whose lanes always have work, those in `busy`; serving takes 10 ms, finding nothing 1 ms."""

    def __init__(self, rng: random.Random, caps: dict[str, float] = _CAPS) -> None:
        self._rng = rng
        self.now = 1_000.0
        self.lanes = LaneShares(_SHARES, caps, clock=lambda: self.now)

    def run(self, seconds: float, *busy: Lane) -> dict[Lane, float]:
        """The share of the time that each lane got."""
        given = dict.fromkeys(Lane, 0.0)
        end = self.now + seconds
        while self.now < end:
            lane = next((lane for lane in self.lanes.order() if lane in busy), None)
            took = 0.01 * self._rng.uniform(0.2, 1.8) if lane else 0.001
            self.now += took
            if lane:
                self.lanes.used(lane, took)
                given[lane] += took
        return {lane: spent / seconds for lane, spent in given.items()}


def test_every_busy_lane_gets_its_share(rng: random.Random) -> None:
    given = Simulation(rng, _FREE).run(120, *Lane)
    assert given == pytest.approx({Lane(lane): share for lane, share in _SHARES.items()}, abs=0.03)


def test_a_lane_without_work_leaves_its_share_to_the_others(rng: random.Random) -> None:
    given = Simulation(rng, _FREE).run(120, Lane.LIVE, Lane.REPLAY)
    assert given[Lane.LIVE] == pytest.approx(7 / 8, abs=0.03)
    assert given[Lane.REPLAY] == pytest.approx(1 / 8, abs=0.03)


@pytest.mark.parametrize("lane", [Lane.RETRY, Lane.REPLAY])
def test_a_lane_alone_gets_its_cap_for_as_long_as_it_has_work(rng: random.Random, lane: Lane) -> None:
    simulation = Simulation(rng)
    for _ in range(5):
        assert simulation.run(60, lane)[lane] == pytest.approx(_CAPS[lane.value], abs=0.04)


def test_live_alone_gets_everything(rng: random.Random) -> None:
    assert Simulation(rng).run(60, Lane.LIVE)[Lane.LIVE] == pytest.approx(1.0, abs=0.01)


def test_a_lane_that_wakes_goes_first(rng: random.Random) -> None:
    simulation = Simulation(rng, _FREE)
    simulation.run(60, Lane.REPLAY)
    assert simulation.lanes.order()[-1] is Lane.REPLAY
    simulation.run(0.05, *Lane)
    assert simulation.run(1.0, Lane.LIVE, Lane.REPLAY)[Lane.LIVE] > 0.9


def test_a_lane_without_a_share_still_gets_some() -> None:
    now = 0.0
    lanes = LaneShares({"live": 1.0}, {}, clock=lambda: now)
    lanes.used(Lane.LIVE, 100.0)
    lanes.used(Lane.REPLAY, 0.01)
    assert set(lanes.order()) == set(Lane)
    assert lanes.order().index(Lane.REPLAY) < lanes.order().index(Lane.LIVE)
