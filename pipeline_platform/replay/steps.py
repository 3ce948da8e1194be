"""Moves a replay: planned → diffing → diffed → committing → committed → undoing → undone, or cancelled.

These functions begin a step; the workers do it. A step continues after the process that began it has ended. `wait`
follows its progress.
"""

import getpass
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from pipeline_platform.db import queries
from pipeline_platform.errors import ClosedGateError, ConfigError, NoSuchThingError, NotNowError
from pipeline_platform.worker.transform import TRANSFORM_VERSION

_SQL = queries("replay")
_RUNNING = ("diffing", "committing", "undoing")
_LOOK_EVERY_S = 0.2

Conn = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of the current step, or of the last one."""

    state: str
    is_paused: bool
    paused_because: str | None
    chunks: int
    chunks_done: int
    events: int
    events_done: int
    seconds: float

    @property
    def events_per_s(self) -> float:
        return self.events_done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds left; None before any event is done."""
        rate = self.events_per_s
        return (self.events - self.events_done) / rate if rate else None

    def to_json(self) -> dict[str, Any]:
        return {
            "chunks": self.chunks, "chunks_done": self.chunks_done, "events": self.events,
            "events_done": self.events_done, "events_per_s": round(self.events_per_s, 1),
            "seconds_left": None if self.seconds_left is None else round(self.seconds_left, 1),
        }  # fmt: skip


def start_diff(conn: Conn, replay_id: int) -> None:
    """Process the plan's events beside production. Its hours are held until the replay is done or cancelled.

    ClosedGateError if batches of the plan are gone.
    """
    with conn.transaction():
        _require(conn, replay_id, "diff", "planned", "diffed")
        params = {"replay_id": replay_id}
        conn.execute(_SQL["hold_hours"], params)
        require_hours(conn, replay_id, all_chunks=True)
        conn.execute(_SQL["begin_diff"], params | {"version": TRANSFORM_VERSION})
        _enter(conn, replay_id, "diffing")


def require_hours(conn: Conn, replay_id: int, *, all_chunks: bool = False) -> None:
    """Check that the batches are kept which the chunks to do (or all chunks) read. ClosedGateError names the hours."""
    params = {"replay_id": replay_id, "all_chunks": all_chunks}
    gone = conn.execute(_SQL["unreadable_hours"], params).fetchall()
    if gone:
        named = ", ".join(f"{hour:%Y-%m-%dT%H:%MZ} ({kept:,} of {events:,} events)" for hour, events, kept in gone[:5])
        more = f" and {len(gone) - 5} more" if len(gone) > 5 else ""
        raise ClosedGateError(
            f"replay {replay_id} cannot read what it planned: hours were dropped or replaced since: {named}{more}. "
            f"Cancel it (pipeline-platform replay cancel {replay_id}) and plan again"
        )


def start_commit(conn: Conn, replay_id: int, *, takes_newer: bool = False) -> None:
    """Put the result of the diff into production. takes_newer: also where production changed since the diff."""
    with conn.transaction():
        _require(conn, replay_id, "commit", "diffed")
        (unread,) = conn.execute(_SQL["unread_chunks"], {"replay_id": replay_id}).fetchone() or (0,)
        if unread:
            raise ClosedGateError(
                f"the diff of replay {replay_id} is not complete: {unread} of its chunks were not read whole. "
                f"Cancel it (pipeline-platform replay cancel {replay_id}) and plan again"
            )
        conn.execute(_SQL["begin_commit"], {"replay_id": replay_id, "takes_newer": takes_newer})
        _enter(conn, replay_id, "committing", reason="commit")


def start_undo(conn: Conn, replay_id: int, reason: str) -> None:
    """Undo what was committed, including a commit that stopped half-way."""
    if not reason.strip():
        raise ConfigError("say why with --reason: it is kept in the audit log")
    with conn.transaction():
        _require(conn, replay_id, "undo", "committed", "committing")
        conn.execute(_SQL["begin_undo"], {"replay_id": replay_id})
        _enter(conn, replay_id, "undoing", reason=reason)


def cancel(conn: Conn, replay_id: int) -> None:
    """End a replay that has changed nothing yet; its hours may be dropped again."""
    with conn.transaction():
        _require(conn, replay_id, "cancel", "planned", "diffing", "diffed")
        conn.execute(_SQL["forget_scratch"], {"replay_id": replay_id})
        conn.execute(_SQL["resolve_alert"], {"replay_id": replay_id})
        _enter(conn, replay_id, "cancelled")


def set_paused(conn: Conn, replay_id: int, *, is_paused: bool) -> None:
    """Pause after the current chunks, or resume."""
    with conn.transaction():
        _require(conn, replay_id, "pause" if is_paused else "resume", *_RUNNING)
        params = {"replay_id": replay_id, "is_paused": is_paused}
        conn.execute(_SQL["set_paused"], params)
        if not is_paused:
            conn.execute(_SQL["forget_takes"], params)
            conn.execute(_SQL["resolve_alert"], params)


def progress(conn: Conn, replay_id: int) -> Progress:
    """Progress of the step."""
    found = _state(conn, replay_id, "one")
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_SQL["progress"], {"replay_id": replay_id}).fetchone() or {}
    return Progress(
        found["state"], found["is_paused"], found["paused_because"], row["chunks"], row["chunks_done"], row["events"],
        row["events_done"], row["seconds"] or 0.0,
    )  # fmt: skip


def wait(
    conn: Conn, replay_id: int, on_progress: Callable[[Progress], None] = lambda _: None, *, stalled_s: float = 120.0
) -> Progress:
    """Wait until the step is done.

    NotNowError if an operator paused it, or if there was no progress for `stalled_s` seconds. ClosedGateError if it was
    paused because it cannot go on.
    """
    moved_at, done = time.monotonic(), -1
    while True:
        now = progress(conn, replay_id)
        on_progress(now)
        if now.state not in _RUNNING:
            return now
        if now.is_paused:
            resume = f"go on with: pipeline-platform replay resume {replay_id}"
            if now.paused_because:
                raise ClosedGateError(f"replay {replay_id} is paused: {now.paused_because}. Afterwards, {resume}")
            raise NotNowError(f"replay {replay_id} is paused; {resume}")
        if now.chunks_done != done:
            moved_at, done = time.monotonic(), now.chunks_done
        elif time.monotonic() - moved_at > stalled_s:
            raise NotNowError(
                f"replay {replay_id} has not moved for {stalled_s:.0f} s: do workers run, and is its window's "
                "work done? See: pipeline-platform status. It goes on by itself once they do"
            )
        time.sleep(_LOOK_EVERY_S)


def limit_lane(conn: Conn, share: float, cap: float) -> None:
    """Limit the share of each worker's time for replays from now on: at least `share`, at most `cap` (0 to 1)."""
    if not 0 < share <= cap <= 1:
        raise ConfigError("share and cap are parts of 1, the share not above the cap")
    conn.execute(_SQL["set_lane_limit"], {"share": share, "cap": cap})


def _require(conn: Conn, replay_id: int, what: str, *states: str) -> None:
    found = _state(conn, replay_id, "lock")
    if found["state"] not in states:
        raise ClosedGateError(
            f"replay {replay_id} is {found['state']}: only one that is {' or '.join(states)} can {what}"
        )
    if found["pruned_at"]:
        raise ClosedGateError(
            f"what replay {replay_id} kept is past the retention since {found['pruned_at']:%Y-%m-%d %H:%M}"
        )


def _state(conn: Conn, replay_id: int, query: str) -> dict[str, Any]:
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_SQL[query], {"replay_id": replay_id}).fetchone()
    if row is None:
        raise NoSuchThingError(f"there is no replay {replay_id}; see: pipeline-platform replay list")
    return row


def _enter(conn: Conn, replay_id: int, state: str, reason: str = "") -> None:
    conn.execute(_SQL["set_state"], {"replay_id": replay_id, "state": state})
    detail = Jsonb({"replay_id": replay_id, "state": state})
    conn.execute(
        _SQL["log"], {"actor": getpass.getuser(), "action": "replay", "reason": reason or state, "detail": detail}
    )
