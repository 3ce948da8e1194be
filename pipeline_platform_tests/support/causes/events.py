"""Causes of alerts in events: they wait, fail, come late or are rejected, or their workers die."""

from pipeline_platform.dead_letters.circuit import Circuit
from pipeline_platform.dead_letters.circuit_switch import close_circuit
from pipeline_platform.event.types import Lane, RejectedEvent
from pipeline_platform.queue.batches import claim
from pipeline_platform.worker.engine import Engine
from pipeline_platform_tests.support.causes.world import Ended, World
from pipeline_platform_tests.support.platform import Platform as Processes
from pipeline_platform_tests.support.queue import accept
from pipeline_platform_tests.support.tenants import add_tenants
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.workers import working

# PostgreSQL stores no text that holds it: found out by the load.
_UNLOADABLE = {"a": "\0"}


def exhausted(world: World) -> Ended:
    """An event that cannot be written, tried as often as it is tried."""
    world.accept(world.tenant, 3, **_UNLOADABLE)
    world.deliver()
    yield
    world.discard()


def unbalanced(world: World) -> Ended:
    """A counter altered behind the account's back."""
    world.accept(world.tenant, 3)
    world.deliver()
    world.conn.execute("SELECT account.fold()")
    world.conn.execute("UPDATE account.counters SET delivered = delivered + 1")
    yield
    world.conn.execute("UPDATE account.counters SET delivered = delivered - 1")


def rate_low(world: World) -> Ended:
    """One of 21 events cannot be written."""
    tenant = world.tenant
    world.accept(tenant, 20)
    world.accept(tenant, 1, **_UNLOADABLE)
    world.deliver()
    yield
    world.discard()


def waiting(world: World) -> Ended:
    """Events, and nobody who processes them."""
    world.accept(world.tenant, 3)
    yield
    world.deliver()


def slow(world: World) -> Ended:
    """Events of two windows that took longer than the objective; nothing ends it but time."""
    tenant = world.tenant
    world.accept(tenant, 30)
    world.deliver()
    window_s = world.settings.objective_latency_window_s
    age = "SELECT extract(epoch FROM clock_timestamp() - max(received_at))::float8 FROM analytics.events"
    wait_for("the next window", lambda: world.conn.execute(age).fetchall()[0][0] > window_s)
    world.accept(tenant, 30)
    world.deliver()
    yield


def circuit(world: World) -> Ended:
    """A worker that sees nothing but dead letters, of three tenants."""
    for tenant in add_tenants(world.conn, "a", "b", "c"):
        world.accept(tenant.tenant_id, 100, **_UNLOADABLE)
    seen = Circuit(world.settings)
    with working(world.settings) as workers:
        Engine(world.settings, workers.conn, workers.lookups, seen).step(lambda own: claim(own, Lane.LIVE, 10, 0))
        assert seen.look(workers.conn)
    yield
    close_circuit(world.conn, "a test")


def crashing(world: World) -> Ended:
    """Workers that end as soon as they are started, each replaced by its pool."""
    place = world.settings.home / "crashing"
    place.mkdir()
    (place / "sitecustomize.py").write_text("import os, sys\nif '--slot' in sys.orig_argv:\n    os._exit(3)\n")
    with Processes(world.settings) as platform:
        platform.start_crashing_workers(python_path=place)
        deaths = "SELECT count(*) >= 5 FROM queue.worker_deaths"
        wait_for("five deaths", lambda: world.conn.execute(deaths).fetchone() == (True,), 120)
    yield
    world.conn.execute("UPDATE queue.worker_deaths SET died_at = died_at - interval '1 hour'")


def rejected(world: World) -> Ended:
    """A tenant sends as many events that are none as events, and then good ones."""
    tenant = world.tenant
    refused = [RejectedEvent(tenant, None, "missing_field", "userId is missing", b"{}") for _ in range(10)]
    accept(world.conn, rejected=refused)
    world.accept(tenant, 10)
    yield
    world.accept(tenant, 200)
    world.deliver()
