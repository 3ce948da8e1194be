"""Promise: whenever the flag turns, each event is in production exactly once, through exactly one pipeline."""

import itertools
import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg

from pipeline_platform.event.types import event_id_of
from pipeline_platform.migration.cutover.phases import Phase, current
from pipeline_platform.migration.cutover.transition import turn
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.client import Client
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.ledger import Ledger, Report, Verdict
from pipeline_platform_tests.support.load import Load
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.simulation import LegacyPipeline
from pipeline_platform_tests.support.tenants import add_tenants

Conn = psycopg.Connection[Any]
_TURNS = 50


@contextmanager
def both_pipelines(settings: Settings) -> Iterator[tuple[LegacyPipeline, Platform]]:
    """The old pipeline, with room for everything, the mirror, and a platform that is not started yet."""
    with (
        LegacyPipeline(settings, capacity_per_s=5_000, mirror=True) as old,
        Platform(settings) as platform,
    ):
        yield old, platform


def _each_is_delivered_by_its_stamp(conn: Conn) -> None:
    """Rows are where their batch's stamp says, the old pipeline's share is the rest."""
    wrong = conn.execute(
        "SELECT count(*) FROM account.delivered AS d"
        " JOIN queue.batches AS b ON b.batch_id = d.batch_id"
        " JOIN control.epochs AS e ON e.epoch = b.epoch WHERE d.epoch <> b.epoch OR d.is_shadow <> e.is_shadow"
    ).fetchone()
    both = conn.execute(
        "SELECT count(*) FROM analytics.events JOIN shadow.events USING (tenant_id, event_id)"
    ).fetchone()
    assert (wrong, both) == ((0,), (0,))


def _judge(conn: Conn, ledger: Ledger) -> Verdict:
    """What is in production, but for events that the old pipeline itself reports as lost to its own time-outs."""
    reported = {
        (tenant_id, event_id)
        for tenant_id, event_id in conn.execute(
            "SELECT tenant_id, event_id FROM legacy.losses WHERE cause = 'time-out'"
        )
    }
    verdict = ledger.judge(conn, "analytics.production")
    lost = [each for each in verdict.lost if (each[0], event_id_of(each[1])) not in reported]
    return replace(verdict, lost=lost)


def test_fifty_turns_under_load(settings: Settings, conn: Conn, seed: int, report: Report) -> None:
    ledger = Ledger(seed)
    tenants = add_tenants(conn, "a", "b", "c")
    phases = itertools.cycle([Phase.PLATFORM_PRIMARY, Phase.SHADOW])
    turn(conn, settings, Phase.SHADOW, reason="test", force=True)
    with both_pipelines(settings) as (old, platform):
        platform.start_workers()
        platform.start_gateway()
        with Load(platform.port, ledger, tenants) as load:
            for phase in itertools.islice(phases, _TURNS):
                load.await_acknowledged(20)
                turn(conn, settings, phase, reason="test", force=True)
        platform.await_drained(conn)
        old.await_idle(conn)
    _each_is_delivered_by_its_stamp(conn)
    shares = dict(conn.execute("SELECT pipeline, count(*) FROM analytics.production GROUP BY 1").fetchall())
    assert shares.keys() == {"legacy", "platform"}, shares
    report(_judge(conn, ledger))


def test_a_cutover_killed_at_every_step_under_load(settings: Settings, conn: Conn, seed: int, report: Report) -> None:
    ledger = Ledger(seed)
    tenants = add_tenants(conn, "a", "b")
    turn(conn, settings, Phase.SHADOW, reason="test", force=True)
    with both_pipelines(settings) as (old, platform):
        platform.start_workers()
        platform.start_gateway()
        with Load(platform.port, ledger, tenants) as load:
            for place, expected in (
                ("cutover.before_commit", Phase.SHADOW),
                ("cutover.after_commit", Phase.PLATFORM_PRIMARY),
            ):
                load.await_acknowledged(50)
                words = ("cutover", "to", "platform_primary", "--force", "--reason", "test")
                assert run_command(settings, *words, kill_point=place).code == -9
                assert current(conn).phase is expected
            load.await_acknowledged(50)
            for place, expected in (
                ("cutover.before_commit", Phase.PLATFORM_PRIMARY),
                ("cutover.after_commit", Phase.SHADOW),
            ):
                assert (
                    run_command(settings, "cutover", "back", "--from", "platform_primary", kill_point=place).code == -9
                )
                assert current(conn).phase is expected
            load.await_acknowledged(50)
        platform.await_drained(conn)
        old.await_idle(conn)
    _each_is_delivered_by_its_stamp(conn)
    report(_judge(conn, ledger))


def test_an_event_sent_again_across_turns_is_there_once(settings: Settings, conn: Conn, seed: int) -> None:
    rng = random.Random(seed)
    (tenant,) = add_tenants(conn, "a")
    ids = [uuid.UUID(int=rng.getrandbits(128), version=4) for _ in range(60)]
    events = [{"type": "track", "event": "x", "userId": "u", "messageId": str(each)} for each in ids]
    with both_pipelines(settings) as (old, platform):
        platform.start_gateway()
        client = Client(platform.port, tenant.write_key)
        # Nobody works meanwhile, so that either occurrence may be the first to be processed.
        for phase in (Phase.SHADOW, Phase.PLATFORM_PRIMARY, Phase.SHADOW, Phase.PLATFORM_PRIMARY):
            turn(conn, settings, phase, reason="test", force=True)
            rng.shuffle(events)
            for event in events:
                assert client.send([event]).outcome == "acknowledged"
        platform.start_workers()
        platform.await_drained(conn)
        old.await_idle(conn)
    found = conn.execute("SELECT count(*), count(DISTINCT event_id) FROM analytics.production").fetchone()
    assert found == (60, 60), f"seed {seed}"
    assert conn.execute("SELECT count(*) FROM account.delivered").fetchone() == (60,)
