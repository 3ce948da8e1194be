"""Every command with every option and argument, given extremes and hostile text: a sentence, never a traceback.

What is stored is hostile too: it is shown as text, never as markup and never as what controls a terminal.
"""

import os
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from pipeline_platform.dead_letters.store import bury, failure
from pipeline_platform.event.types import (
    BatchId,
    EventType,
    Lane,
    QueuedEvent,
    RejectedEvent,
    TenantId,
)
from pipeline_platform.settings import Settings
from pipeline_platform.tenants import tenants
from pipeline_platform_tests.support.homes import temporary_home
from pipeline_platform_tests.support.queue import accept, event
from pipeline_platform_tests.support.servers import make_url
from pipeline_platform_tests.support.words import Command, Ended, Parameter, all_commands, run_here

_ESC = "\x1b[31m\x1b]0;owned\x07"
_HOSTILE = f"[/x]{_ESC}\u202e[bold]:smile:"
_TEXTS = ("", " ", f"a\nb{_HOSTILE}", "x" * 5_000)
_NUMBERS = ("", "-1", str(10**20), "1e300", "nan", "inf", _ESC, "9" * 5_000)
_TIMES = ("99999999999d", "99999d", "0001-01-01T00:00", "9999-12-31T23:59:59-14:00", "9999-12-31-23:00", "9999-12-31")
_TIMED = {"since", "until", "start", "end", "last", "hour", "day", "from_", "to"}
_PATHS = ("nonexistent", ".", "/proc/self/mem", "/dev/null")
# They start a platform of their own: only what their parser has to refuse is tried.
_LONG_RUNNING = {("up",), ("demo",), ("bench",)}
# What a command needs beside the parameter under test, so that it comes to use that.
_NEEDED = {
    "name": "acme", "tenant": "acme", "user": "u", "reason": "because", "message_id": "m", "tenant_field": "tenant",
    "file": "empty.ndjson", "correct": "correct.py", "from_": "2026-01-31T14:00", "to": "2026-01-31T15:00",
    "write_key": "wk", "hour": "2026-01-31T14:00", "phase": "shadow", "share": "0.1", "cap": "0.2",
    "dead_letter_id": "1", "quarantine_id": "1", "replay_id": "999", "alert_id": "1", "key_id": "999",
}  # fmt: skip
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_COMMANDS = list(all_commands())
_EVENT = uuid.UUID("00000000-0000-4000-8000-00000000000e")


@pytest.fixture(scope="module")
def shared(servers: dict[str, str], admin: psycopg.Connection[Any]) -> Iterator[Settings]:
    """One database for hundreds of commands: none of them is judged by what it leaves there."""
    name = f"test_words_{os.getpid()}"
    admin.execute(f"CREATE DATABASE {name} TEMPLATE pipeline_template")
    with temporary_home() as home:
        yield Settings(home=home, database_url=make_url(servers["database_url"], name), redis_url=servers["redis_url"])
    admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def here(shared: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to work in, with the environment of the commands set to the servers of the test."""
    for name in [name for name in os.environ if name.startswith("PIPELINE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIPELINE_HOME", str(shared.home))
    monkeypatch.setenv("PIPELINE_DATABASE_URL", shared.database_url)
    monkeypatch.setenv("PIPELINE_REDIS_URL", shared.redis_url)
    monkeypatch.chdir(shared.home)
    (shared.home / "empty.ndjson").touch()
    (shared.home / "correct.py").write_text("def correct(payload): return None\n")
    return shared.home


def words_of(command: Command, tried: Parameter | None = None, value: str = "") -> list[str]:
    """The command with what it needs, and this value for the parameter under test."""
    options: list[str] = []
    arguments: list[str] = []
    for parameter in command.parameters:
        into = arguments if parameter.option is None else options
        if parameter is tried:
            into += parameter.words(value)
        elif parameter.is_required or (parameter.name == "reason" and not parameter.is_flag):
            into += parameter.words(_NEEDED[parameter.name])
    if command.path == ("send",) and (tried is None or tried.name != "tenant_field"):
        options.append("--tenant-field=tenant")
    return [*command.path, *options, *(["--", *arguments] if arguments else [])]


def values_for(parameter: Parameter) -> tuple[str, ...]:
    if parameter.is_number:
        return _NUMBERS
    if parameter.is_path:
        return (*_PATHS, *_TEXTS)
    return (*_TEXTS, *_TIMES) if parameter.name in _TIMED else _TEXTS


def assert_decent(ended: Ended) -> None:
    shown = (ended.words, ended.code, ended.said[:2_000])
    assert ended.code in (0, 1, 2), shown
    assert "Traceback" not in ended.said, shown
    assert "unexpected" not in ended.said or "Got unexpected extra" in ended.said, shown
    assert not _CONTROLS.search(ended.said), shown


@pytest.mark.parametrize("command", _COMMANDS, ids=lambda command: "-".join(command.path))
def test_whatever_is_typed_ends_with_a_sentence(command: Command, here: Path) -> None:
    for parameter in command.parameters:
        if parameter.is_flag:
            continue
        if command.path in _LONG_RUNNING and not parameter.is_number:
            continue
        for value in values_for(parameter):
            assert_decent(run_here(*words_of(command, parameter, value)))
    if command.path not in _LONG_RUNNING:
        assert_decent(run_here(*words_of(command)))


def test_words_that_nobody_knows_are_shown_escaped(here: Path) -> None:
    assert run_here("trace", "\udcff").code == 2
    for words in ([_HOSTILE], [f"--{_HOSTILE}"], ["tenant", _HOSTILE], ["funnel", _HOSTILE], ["funnel", f"-{_ESC}"]):
        ended = run_here(*words)
        assert_decent(ended)
        assert ended.code == 2
        assert "\\x1b" in ended.said


@pytest.fixture(scope="module")
def stored(shared: Settings) -> None:
    """Hostile text wherever a client can put it."""
    with psycopg.connect(shared.database_url, autocommit=True) as conn:
        _store(conn)


def _store(conn: psycopg.Connection[Any]) -> None:
    made = tenants.add_tenant(conn, "[/x][bold]:smile:")
    tenant = TenantId(made.tenant_id)
    payload = b'{"messageId":"[/x]\x1b[31m","type":"nonsense\x9b\xc2\x9b"}'
    bad = [RejectedEvent(tenant, _HOSTILE, "unknown_type", f"no {_HOSTILE}\nforged line", payload)]
    accept(conn, event(tenant), rejected=bad)
    conn.execute(
        "INSERT INTO control.alerts (kind, fingerprint, tenant_id, message) VALUES ('unknown_type', %s, %s, %s)",
        (_HOSTILE, tenant, f"{_HOSTILE}\nforged line"),
    )
    hostile = f"{_HOSTILE}\nforged line"
    payload = msgspec.json.encode({"messageId": hostile, "type": "track", "event": hostile, "userId": hostile})
    now = datetime.now(UTC)
    queued = QueuedEvent(
        tenant, _EVENT, EventType.TRACK, now, now, payload, b"", Lane.LIVE, BatchId(1), 0, now, 1, False
    )
    bury(conn, Settings(), [failure(queued, "load", ValueError(hostile))], exhausted=True)
    conn.execute("INSERT INTO control.circuits (message, reason) VALUES (%s, %s)", (hostile, hostile))
    conn.execute(
        "INSERT INTO control.audit_log (actor, action, reason) VALUES (%s, 'replay_plan', %s)", (hostile, hostile)
    )
    conn.execute(
        "INSERT INTO replay.replays (window_start, window_end, planned_events, actor, reason)"
        " VALUES (now() - interval '1 hour', now(), 1, %s, %s)",
        (hostile, hostile),
    )


@pytest.mark.usefixtures("stored", "here")
@pytest.mark.parametrize("command", _COMMANDS, ids=lambda command: "-".join(command.path))
def test_whatever_is_stored_is_shown_as_text(command: Command) -> None:
    if command.path in _LONG_RUNNING:
        pytest.skip("starts a platform of its own")
    for more in ([], ["--json"] if any(each.name == "as_json" for each in command.parameters) else None):
        if more is not None:
            words = words_of(command)
            ended = run_here(*command.path, *more, *words[len(command.path) :])
            assert_decent(ended)
            assert not re.search("^forged line", ended.said, re.MULTILINE), ended


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("dead-letters", "list", "--state", "exhausted"), 0),
        (("dead-letters", "show", "1"), 0),
        (("quarantine", "list"), 0),
        (("quarantine", "show", "1"), 0),
        (("alerts", "list"), 1),
        (("replay", "list"), 0),
        (("replay", "show", "1"), 0),
        (("circuit", "status"), 1),
        (("trace", str(_EVENT)), 0),
        (("status",), 0),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_a_listing_shows_hostile_text_escaped(
    settings: Settings,
    conn: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: int,
) -> None:
    monkeypatch.setenv("PIPELINE_HOME", str(settings.home))
    monkeypatch.setenv("PIPELINE_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("PIPELINE_REDIS_URL", settings.redis_url)
    _store(conn)
    ended = run_here(*words)
    assert_decent(ended)
    assert ended.code == code, ended
    assert "\\x1b" in re.sub(r"[\s│]+", "", ended.said), ended
    assert not re.search("^forged line", ended.said, re.MULTILINE), ended


@pytest.mark.usefixtures("stored", "here")
def test_markup_and_emoji_in_names_are_shown_as_they_are() -> None:
    assert "[/x][bold]:smile:" in run_here("tenant", "list").said
    listed = run_here("quarantine", "list")
    assert listed.code == 0
    assert "[/x]\\x1b[31m" in re.sub(r"[\s│]+", "", listed.said)
