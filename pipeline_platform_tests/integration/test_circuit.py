"""The circuit: a bad deploy stops at the first dead letters, and nothing is lost by it."""

import re
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from pipeline_platform.account.audit import audit
from pipeline_platform.dead_letters.circuit import Circuit
from pipeline_platform.event.types import Lane
from pipeline_platform.queue.batches import claim
from pipeline_platform.settings import Settings
from pipeline_platform.worker.engine import Engine
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.queue import accept, event
from pipeline_platform_tests.support.tenants import add_tenants
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.workers import Workers

Conn = psycopg.Connection[Any]


def _accept(conn: Conn, tenants: Sequence[int], events: int) -> None:
    accept(conn, *(event(tenants[n % len(tenants)]) for n in range(events)))


def test_a_bad_deploy_stops_and_after_it_is_mended_all_goes_on(conn: Conn, settings: Settings) -> None:
    tenants = [tenant.tenant_id for tenant in add_tenants(conn, "a", "b", "c")]
    conn.execute("SELECT queue.open_hour(date_trunc('hour', now(), 'UTC'))")
    with Platform(settings, claim_events_max="100") as platform:
        platform.start_workers(transform="bad_deploy")
        for _ in range(400):
            # More batches than the first claims take, which are made before anything is judged.
            _accept(conn, tenants, 30)
        wait_for("the circuit to open", lambda: run_command(settings, "circuit", "status").code == 1)
        platform.stop_workers()
        state = run_command(settings, "circuit", "status", "--json").answer
        assert "became dead letters" in state["message"] and state["waiting"] > 0
        shown = run_command(settings, "status").out
        assert re.search(r"^circuit +OPEN since .*, [\d,]+ events wait$", shown, re.MULTILINE), shown
        (finding,) = [
            each for each in run_command(settings, "doctor", "--json").answer["findings"] if each["check"] == "circuit"
        ]
        assert not finding["well"] and "pipeline-platform circuit close" in finding["remedy"]
        assert conn.execute("SELECT kind FROM control.alerts WHERE resolved_at IS NULL").fetchall() == [
            ("circuit_open",)
        ]

        platform.start_workers()
        left = conn.execute("SELECT count(*) FROM queue.work").fetchone()
        _accept(conn, tenants, 30)
        assert run_command(settings, "circuit", "close").code == 2
        assert (conn.execute("SELECT count(*) FROM queue.work").fetchone() or (0,))[0] > (left or (0,))[0]
        assert run_command(settings, "circuit", "close", "--reason", "rolled back").code == 0
        platform.await_drained(conn)
        run_command(settings, "dead-letters", "redrive", "--failed-in", "transform", "--reason", "rolled back")
        open_letters = "SELECT count(*) FROM queue.dead_letters WHERE state <> 'delivered'"
        wait_for("the dead letters to be delivered", lambda: conn.execute(open_letters).fetchone() == (0,))
    assert conn.execute("SELECT count(*) FROM analytics.events").fetchone() == (12_030,)
    assert run_command(settings, "circuit", "status").code == 0
    assert run_command(settings, "circuit", "close", "--reason", "again").code == 1
    assert not audit(conn).differences


@pytest.mark.parametrize("part", [60, 90])
def test_failures_of_the_load_open_it_too(conn: Conn, settings: Settings, workers: Workers, part: int) -> None:
    tenants = [tenant.tenant_id for tenant in add_tenants(conn, "a", "b", "c")]
    conn.execute("SELECT queue.open_hour(date_trunc('hour', now(), 'UTC'))")
    made = [event(tenants[n % 3], properties={"a": "\0"} if n // 3 % 100 < part else None) for n in range(300)]
    accept(conn, *made)
    circuit = Circuit(settings)
    engine = Engine(settings, workers.conn, workers.lookups, circuit)
    engine.step(lambda own: claim(own, Lane.LIVE, 10, 0))
    assert circuit.tripped and f"{3 * part} of 300 events" in circuit.tripped
    assert circuit.look(conn)


def test_one_or_two_tenants_cannot_open_it_for_others(conn: Conn, settings: Settings) -> None:
    tenants = [tenant.tenant_id for tenant in add_tenants(conn, "a", "b", "c", "d")]
    conn.execute("SELECT queue.open_hour(date_trunc('hour', now(), 'UTC'))")
    circuit = Circuit(settings)
    _accept(conn, tenants, 40)
    # This worker saw nobody else lately.
    circuit.note([], tenants[:2] * 100)
    assert circuit.tripped and not circuit.look(conn)
    circuit = Circuit(settings)
    circuit.note(tenants[1:] * 30, tenants[:1] * 1_000)
    assert circuit.tripped is None
    circuit.note([], tenants[1:3] * 100)
    assert circuit.tripped and "3 of 4 tenants" in circuit.tripped
    assert circuit.look(conn)


def test_with_two_tenants_one_of_them_cannot_stop_the_other(conn: Conn, settings: Settings) -> None:
    first, second = (tenant.tenant_id for tenant in add_tenants(conn, "a", "b"))
    conn.execute("SELECT queue.open_hour(date_trunc('hour', now(), 'UTC'))")
    # The other one is quiet, sends now and then, has an accident of its own.
    for sent, good, bad in ([first], [], []), ([first, second], [second] * 5, []), ([], [second] * 9, [second]):
        if sent:
            _accept(conn, sent, 10)
        circuit = Circuit(settings)
        circuit.note(good, [first] * 300 + bad)
        assert not circuit.look(conn)
    circuit = Circuit(settings)
    circuit.note([], [first] * 300 + [second] * 3)
    assert circuit.look(conn), "a bad deploy hits both"


def test_where_there_is_one_tenant_a_bad_deploy_stops_too(conn: Conn, settings: Settings) -> None:
    (only,) = (tenant.tenant_id for tenant in add_tenants(conn, "a"))
    circuit = Circuit(settings)
    circuit.note([], [only] * 300)
    assert circuit.look(conn)


def test_many_workers_judge_as_few(settings: Settings) -> None:
    circuit = Circuit(settings.model_copy(update={"workers": 4}))
    circuit.note([], [1] * 49)
    assert circuit.tripped is None
    circuit.note([], [1])
    assert circuit.tripped


def test_few_events_and_old_ones_are_not_judged(settings: Settings) -> None:
    now = 0.0
    circuit = Circuit(settings, lambda: now)
    circuit.note([], [1] * 99)
    assert circuit.tripped is None
    now = 31.0
    circuit.note([], [1])
    assert circuit.tripped is None
