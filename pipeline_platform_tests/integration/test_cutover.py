"""Phases, gates, the turn and the watch after it."""

import threading
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pipeline_platform.errors import ClosedGateError, ConfigError
from pipeline_platform.migration.cutover.gates import gate_of
from pipeline_platform.migration.cutover.phases import Phase, current
from pipeline_platform.migration.cutover.transition import back, status, turn
from pipeline_platform.migration.cutover.watch import watch
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.command import run_command
from pipeline_platform_tests.support.migration import legacy_has, open_epoch, settle
from pipeline_platform_tests.support.queue import accept_ids
from pipeline_platform_tests.support.simulation import LegacyPipeline
from pipeline_platform_tests.support.tenants import add_tenants
from pipeline_platform_tests.support.waiting import wait_for
from pipeline_platform_tests.support.workers import drain

Conn = psycopg.Connection[Any]


def _closed(conn: Conn, settings: Settings, phase: Phase) -> list[str]:
    return [condition.name for condition in gate_of(conn, settings, phase) if not condition.is_met]


def _compared(conn: Conn, tenant_id: int, start: datetime, hours: float, **numbers: int) -> None:
    """A settled comparison, as reconcile writes it."""
    window = (start, start + timedelta(hours=hours))
    conn.execute(
        "INSERT INTO reconcile.windows (window_start, window_end, is_settled, seconds, coverage)"
        " VALUES (%s, %s, true, 1, '{}')",
        window,
    )
    numbers = {"accepted": 5, "platform": 5, "legacy": 5, "matched": 5, **numbers}
    columns = ", ".join(numbers)
    values = ", ".join(["%s"] * (3 + len(numbers)))
    conn.execute(
        f"INSERT INTO reconcile.results (window_start, window_end, tenant_id, {columns}) VALUES ({values})",
        (*window, tenant_id, *numbers.values()),
    )


def _in_shadow_for(conn: Conn, hours: float) -> datetime:
    """A shadow phase that began so long ago; its begin."""
    open_epoch(conn, "legacy_only")
    open_epoch(conn, "shadow")
    begin = datetime.now(UTC) - timedelta(hours=hours)
    conn.execute("UPDATE control.epochs SET opened_at = %s WHERE phase = 'shadow'", (begin,))
    return begin


def test_a_new_installation_is_its_own_production(conn: Conn, settings: Settings) -> None:
    here = current(conn)
    assert (here.phase, here.is_shadow, here.is_mirrored) == (Phase.LEGACY_OFF, False, False)
    assert status(conn, settings).next_phase is Phase.LEGACY_ONLY
    with pytest.raises(ConfigError, match="no phase before"):
        back(conn, Phase.LEGACY_OFF, reason="x")


def test_a_migration_begins_with_somebody_to_mirror_to(conn: Conn, settings: Settings) -> None:
    assert _closed(conn, settings, Phase.LEGACY_ONLY) == ["forward target", "mirror"]
    with pytest.raises(ClosedGateError, match=r"forward target: none is configured .*mirror configure"):
        turn(conn, settings, Phase.LEGACY_ONLY, reason="x")
    with LegacyPipeline(settings, mirror=True):
        wait_for("the gate", lambda: not _closed(conn, settings, Phase.LEGACY_ONLY), 10)
        assert turn(conn, settings, Phase.LEGACY_ONLY, reason="we begin") == 2
        assert "mirror delivers" in _closed(conn, settings, Phase.SHADOW)
        (acme,) = add_tenants(conn, "acme")
        accept_ids(conn, acme.tenant_id, [uuid.uuid4()])
        wait_for("the gate to shadow", lambda: not _closed(conn, settings, Phase.SHADOW), 20)
        assert turn(conn, settings, Phase.SHADOW, reason="it arrives") == 3
    assert conn.execute("SELECT action, reason, detail->>'to' FROM control.audit_log ORDER BY entry_id").fetchall() == [
        ("cutover", "we begin", "legacy_only"),
        ("cutover", "it arrives", "shadow"),
    ]


def test_phases_are_entered_in_order_or_by_force(conn: Conn, settings: Settings) -> None:
    with pytest.raises(ConfigError, match="after legacy_off comes legacy_only"):
        turn(conn, settings, Phase.PLATFORM_PRIMARY, reason="x")
    with pytest.raises(ConfigError, match="needs --reason"):
        turn(conn, settings, Phase.PLATFORM_PRIMARY, reason="", force=True)
    turn(conn, settings, Phase.PLATFORM_PRIMARY, reason="an emergency", force=True)
    with pytest.raises(ConfigError, match="already"):
        turn(conn, settings, Phase.PLATFORM_PRIMARY, reason="x", force=True)
    assert back(conn, Phase.PLATFORM_PRIMARY, reason="all wrong") == 3
    assert current(conn).phase is Phase.SHADOW
    forced = conn.execute("SELECT detail->>'forced' FROM control.audit_log ORDER BY entry_id").fetchall()
    assert forced == [("true",), ("false",)]


@pytest.mark.parametrize(
    ("hours", "numbers", "opens"),
    [
        ([1.0] * 3, {}, True),
        ([1.0] * 2, {}, False),
        ([3.0], {"dropped": 4, "missing": 4, "matched": 1}, True),  # what the old pipeline lost is no objection
        ([3.0], {"extra": 1}, False),
        ([3.0], {"mismatched": 1}, False),
        ([3.0], {"platform": 4}, False),
        ([], {}, False),
    ],
)
def test_the_cutover_asks_for_hours_of_parity(
    conn: Conn, settings: Settings, hours: list[float], numbers: dict[str, int], opens: bool
) -> None:
    settings = settings.model_copy(update={"parity_h": 3})
    begin = _in_shadow_for(conn, 3.1)
    for place, length in enumerate(hours):
        _compared(conn, 1, begin + timedelta(hours=place), length, **numbers)
    assert ("parity" not in _closed(conn, settings, Phase.PLATFORM_PRIMARY)) is opens


def test_a_gap_a_difference_or_an_old_end_breaks_the_parity(conn: Conn, settings: Settings) -> None:
    settings = settings.model_copy(update={"parity_h": 3})
    begin = _in_shadow_for(conn, 8)
    _compared(conn, 1, begin, 4)
    assert _closed(conn, settings, Phase.PLATFORM_PRIMARY) == ["parity"]  # it ended four hours ago
    _compared(conn, 1, begin + timedelta(hours=4), 1, extra=1)
    _compared(conn, 1, begin + timedelta(hours=5), 2.9)
    assert _closed(conn, settings, Phase.PLATFORM_PRIMARY) == ["parity"]
    conn.execute("UPDATE reconcile.results SET extra = 0")
    assert _closed(conn, settings, Phase.PLATFORM_PRIMARY) == []
    conn.execute("DELETE FROM reconcile.windows WHERE window_start = %s", (begin + timedelta(hours=4),))
    assert _closed(conn, settings, Phase.PLATFORM_PRIMARY) == ["parity"]


def test_what_differed_before_the_turn_is_no_anomaly_after_it(conn: Conn, settings: Settings) -> None:
    open_epoch(conn, "platform_primary")
    _compared(conn, 1, datetime.now(UTC) - timedelta(minutes=30), 1, mismatched=3)
    assert watch(conn, settings) == []


def test_a_loss_of_the_mirror_is_acknowledged_by_a_person(conn: Conn, settings: Settings) -> None:
    acme, beta = add_tenants(conn, "acme", "beta")
    open_epoch(conn, "platform_primary")
    for tenant in (acme, beta, beta):
        conn.execute(
            "INSERT INTO legacy.losses VALUES (%s, gen_random_uuid(), 'mirror', 'unreachable')", (tenant.tenant_id,)
        )
    assert [each.events for each in watch(conn, settings)] == [3]
    words = ("mirror", "acknowledge", "--reason", "an outage", "--json")
    assert run_command(settings, *words, "--tenant", "beta").answer == {"events": 2, "causes": {"unreachable": 2}}
    assert [each.events for each in watch(conn, settings)] == [1]
    assert run_command(settings, *words).answer["events"] == 1
    assert watch(conn, settings) == []
    assert conn.execute("SELECT count(*) FROM legacy.losses").fetchone() == (3,), "they stay listed"
    noted = "SELECT reason FROM control.audit_log WHERE action = 'mirror acknowledge'"
    assert conn.execute(noted).fetchall() == [("an outage",)] * 2


def test_two_who_turn_back_at_once_go_back_one_phase(conn: Conn, settings: Settings) -> None:
    open_epoch(conn, "platform_primary")
    said: list[str] = []

    def turn_back() -> None:
        with psycopg.connect(settings.database_url, autocommit=True) as own:
            try:
                said.append(str(back(own, Phase.PLATFORM_PRIMARY, reason="x")))
            except ConfigError as error:
                said.append(str(error))

    threads = [threading.Thread(target=turn_back) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert current(conn).phase is Phase.SHADOW
    assert sum("the phase is shadow, not platform_primary" in each for each in said) == 1


@pytest.mark.parametrize(
    ("numbers", "coverage", "found"),
    [
        ({"accepted": 300, "platform": 300, "legacy": 0, "matched": 0, "dropped": 300}, {}, "0 events of 0 tenants"),
        ({"accepted": 0, "platform": 0, "legacy": 0, "matched": 0}, {}, "0 events of 0 tenants"),
        ({"accepted": 99, "platform": 99, "legacy": 99, "matched": 99}, {}, "99 events of 1 tenants"),
        ({"accepted": 200, "platform": 200, "legacy": 200, "matched": 200}, {}, None),
        (
            {"accepted": 200, "platform": 200, "matched": 200},
            {"unknown_rows": 3, "untimed_rows": 1},
            "4 rows of the old",
        ),
    ],
)
def test_parity_is_a_claim_about_events_that_were_compared(
    conn: Conn, settings: Settings, numbers: dict[str, int], coverage: dict[str, int], found: str | None
) -> None:
    settings = settings.model_copy(update={"parity_h": 3, "parity_events_min": 100})
    begin = _in_shadow_for(conn, 3.1)
    (acme,) = add_tenants(conn, "acme")
    _compared(conn, acme.tenant_id, begin, 3, **numbers)
    conn.execute("UPDATE reconcile.windows SET coverage = %s", (Jsonb(coverage),))
    closed = {each.name: each.found for each in gate_of(conn, settings, Phase.PLATFORM_PRIMARY) if not each.is_met}
    assert list(closed) == ([] if found is None else ["compared"])
    assert found is None or found in closed["compared"]


def test_a_tenant_of_which_nothing_was_matched_keeps_the_gate_shut(conn: Conn, settings: Settings) -> None:
    settings = settings.model_copy(update={"parity_h": 3})
    begin = _in_shadow_for(conn, 3.1)
    acme, beta, tiny = add_tenants(conn, "acme", "beta", "tiny")
    _compared(conn, acme.tenant_id, begin, 3, accepted=500, platform=500, legacy=500, matched=500)
    more = (
        "INSERT INTO reconcile.results (window_start, window_end, tenant_id, accepted, platform, dropped)"
        " SELECT window_start, window_end, %s, %s, %s, %s FROM reconcile.windows"
    )
    conn.execute(more, (tiny.tenant_id, 20, 20, 20))
    assert _closed(conn, settings, Phase.PLATFORM_PRIMARY) == []
    conn.execute(more, (beta.tenant_id, 70, 70, 70))
    closed = {each.name: each.found for each in gate_of(conn, settings, Phase.PLATFORM_PRIMARY) if not each.is_met}
    assert closed == {"compared": "500 events of 1 tenants matched; none of beta"}


def test_the_watch_names_what_is_wrong_once_and_resolves_it(conn: Conn, settings: Settings) -> None:
    (acme,) = add_tenants(conn, "acme")
    open_epoch(conn, "platform_primary")
    assert watch(conn, settings) == []
    conn.execute("UPDATE control.epochs SET opened_at = now() - interval '40 minutes' WHERE phase = 'platform_primary'")
    conn.execute("INSERT INTO legacy.losses VALUES (%s, gen_random_uuid(), 'mirror', 'unreachable')", (acme.tenant_id,))
    _compared(conn, acme.tenant_id, datetime.now(UTC) - timedelta(minutes=30), 1, extra=2)
    for _ in range(2):
        assert [each.name for each in watch(conn, settings)] == ["drift", "mirror_losses"]
    alerts = "SELECT fingerprint, occurrences FROM control.alerts WHERE resolved_at IS NULL ORDER BY fingerprint"
    assert conn.execute(alerts).fetchall() == [("drift", 2), ("mirror_losses", 1)]
    conn.execute("UPDATE reconcile.results SET extra = 0")
    watch(conn, settings)
    assert conn.execute(alerts).fetchall() == [("mirror_losses", 1)]
    back(conn, Phase.PLATFORM_PRIMARY, reason="x")
    watch(conn, settings)
    assert conn.execute(alerts).fetchall() == []


def test_the_old_pipeline_goes_when_watch_and_recovery_are_over(conn: Conn, settings: Settings) -> None:
    (acme,) = add_tenants(conn, "acme")
    open_epoch(conn, "shadow")
    ids = [uuid.uuid4() for _ in range(3)]
    accept_ids(conn, acme.tenant_id, ids)
    drain(settings)
    legacy_has(conn, ids[:2])
    settle(conn)
    open_epoch(conn, "platform_primary")
    assert _closed(conn, settings, Phase.LEGACY_OFF) == ["watch", "recovery"]
    over = settings.model_copy(update={"cutover_watch_h": 0})
    assert _closed(conn, over, Phase.LEGACY_OFF) == ["recovery"]
    assert run_command(settings, "recover", "--reason", "before the end").code == 0
    assert _closed(conn, over, Phase.LEGACY_OFF) == []
    turn(conn, over, Phase.LEGACY_OFF, reason="done")
    assert not current(conn).is_mirrored


@pytest.mark.parametrize(
    ("place", "phase"), [("cutover.before_commit", "legacy_off"), ("cutover.after_commit", "platform_primary")]
)
def test_a_killed_cutover_is_made_or_not(conn: Conn, settings: Settings, place: str, phase: str) -> None:
    words = ("cutover", "to", "platform_primary", "--force", "--reason", "x")
    assert run_command(settings, *words, kill_point=place).code == -9
    assert current(conn).phase == phase
    entries = conn.execute("SELECT count(*) FROM control.audit_log").fetchone()
    assert entries == ((1,) if phase == "platform_primary" else (0,))


def test_the_commands_say_where_it_stands_and_what_is_missing(settings: Settings) -> None:
    found = run_command(settings, "cutover", "status")
    assert found.code == 0 and "Gate to legacy_only: closed" in found.out and "mirror configure" in found.out
    refused = run_command(settings, "cutover", "to", "legacy_only")
    assert refused.code == 1 and "the gate to legacy_only is closed" in refused.said
    assert run_command(settings, "cutover", "to", "legacy_only", "--dry-run").code == 1
    assert run_command(settings, "cutover", "to", "shadow", "--force").code == 2
    done = run_command(settings, "cutover", "to", "shadow", "--force", "--reason", "test", "--json")
    assert done.code == 0 and done.answer == {"phase": "shadow", "epoch": 2}
    assert run_command(settings, "cutover", "status", "--json").answer["production"] == "legacy"
    back_from_shadow = run_command(settings, "cutover", "back", "--from", "shadow", "--json")
    assert back_from_shadow.answer["phase"] == "legacy_only"
    assert "the phase is legacy_only, not shadow" in run_command(settings, "cutover", "back", "--from", "shadow").said
    assert run_command(settings, "cutover", "back", "--from", "legacy_only").code == 2
