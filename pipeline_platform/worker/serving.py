"""One turn of a worker: it serves the most entitled lane that has work."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from pipeline_platform.event.types import Lane
from pipeline_platform.lookups import Lookups
from pipeline_platform.queue.batches import Work, claim
from pipeline_platform.queue.claim_notes import ClaimNote
from pipeline_platform.queue.low_water import LowWater
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.metrics.processes import WorkerNumbers
from pipeline_platform.worker.engine import Engine, Processed
from pipeline_platform.worker.lanes import LaneShares
from pipeline_platform.worker.pacing import Pacing
from pipeline_platform.worker.replay_lane import Replaying
from pipeline_platform.worker.retry_lane import redeliver
from pipeline_platform.worker.transform import Transform

# A query of an empty lane delays a live event by a round trip. The other lanes are queried this often while empty.
_EMPTY_LANE_S = 0.05


@dataclass(frozen=True, slots=True)
class Session:
    """What a worker has while it is connected."""

    conn: psycopg.Connection[Any]
    engine: Engine
    lookups: Lookups
    replaying: Replaying
    low_water: LowWater
    transform: Transform


class LaneServer:
    """The lanes as one worker serves them, over all its connections. `note` says what the worker holds."""

    def __init__(self, settings: Settings, pacing: Pacing, note: ClaimNote) -> None:
        self._settings = settings
        self._pacing = pacing
        self._note = note
        self._shares = LaneShares(settings.lane_shares, settings.lane_caps)
        self._numbers = WorkerNumbers(Lane)
        self._empty_until = dict.fromkeys(Lane, 0.0)
        self._replay_waits = False
        self.more_waits = False

    def refresh(self, session: Session) -> None:
        """Read whether a replay waits, and count the look-ups."""
        self._replay_waits, share, cap = session.replaying.state_of_lane()
        self._shares.limit(Lane.REPLAY, share, cap)
        lookups = session.lookups
        self._numbers.looked_up(lookups.hits, lookups.misses)
        lookups.hits = lookups.misses = 0

    def serve(self, session: Session) -> bool:
        """Serve one lane. False if none has work. `more_waits`: whether the lane may have more."""
        self.more_waits = False
        for lane in self._shares.order():
            start = time.monotonic()
            if start < self._empty_until[lane] or (lane is Lane.REPLAY and self._pacing.is_kept_free(start)):
                continue
            if self._process(session, lane).claimed:
                self.more_waits = lane is not Lane.LIVE or self._pacing.took_all
                end = time.monotonic()
                self._shares.used(lane, end - start)
                if lane is Lane.LIVE:
                    self._pacing.live_served(end)
                return True
            if lane is not Lane.LIVE:
                self._empty_until[lane] = start + _EMPTY_LANE_S
        return False

    def _process(self, session: Session, lane: Lane) -> Processed:
        if lane is Lane.RETRY:
            return redeliver(
                self._settings,
                session.conn,
                session.lookups,
                lambda letters: self._note.write([], letters),
                session.transform,
            )
        done = self._step(session.engine, lane, session.low_water.marks[lane])
        if lane is Lane.REPLAY and self._replay_waits and not done.claimed:
            return Processed(claimed=session.replaying.step())
        return done

    def _step(self, engine: Engine, lane: Lane, low_water: int) -> Processed:
        limit, events_max = self._pacing.batches(), self._pacing.events_max
        waited_s = self._pacing.help_after_s if lane is Lane.LIVE else 0.0
        pieces = 0

        def noted(works: Sequence[Work]) -> None:
            nonlocal pieces
            self._note.write([work.work_id for work in works])
            pieces = len(works)
            self._pacing.claimed(works, limit)

        begin = time.perf_counter()
        done = engine.step(lambda conn: claim(conn, lane, limit, low_water, events_max, waited_s), noted)
        if done.claimed:
            outcomes = (done.delivered, done.duplicate, done.dead_lettered)
            self._numbers.stepped(lane, pieces, outcomes, time.perf_counter() - begin)
        return done
