"""Neither libpq's variables nor a server's defaults change what a connection means; what cannot work is refused."""

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pipeline_platform import connections, db
from pipeline_platform.errors import ConfigError, UnfitServerError, is_transient
from pipeline_platform.local.services import Endpoints, connected
from pipeline_platform.settings import Settings
from pipeline_platform_tests.support.client import Client
from pipeline_platform_tests.support.gateway import event
from pipeline_platform_tests.support.platform import Platform
from pipeline_platform_tests.support.tenants import add_tenant
from pipeline_platform_tests.support.waiting import wait_for

Conn = psycopg.Connection[Any]
_TEXT = "日本 👍"
# As each would do most harm. What is not named here gets a value that no server and no file has.
_HOSTILE = {
    "PGCLIENTENCODING": "LATIN1",
    "PGCONNECT_TIMEOUT": "never",
    "PGDATESTYLE": "German",
    "PGGEQO": "off",
    "PGGSSENCMODE": "require",
    "PGCHANNELBINDING": "require",
    "PGHOST": "192.0.2.1",
    "PGHOSTADDR": "192.0.2.1",
    "PGOPTIONS": "-c TimeZone=Asia/Tokyo -c search_path=nowhere -c default_transaction_read_only=on",
    "PGPORT": "1",
    "PGREQUIREAUTH": "none",
    "PGSSLMODE": "verify-full",
    "PGSSLNEGOTIATION": "direct",
    "PGTARGETSESSIONATTRS": "standby",
    "PGTZ": "Asia/Tokyo",
}
_ROLE = "hostile"
_ACCESS_METHOD = "hostile"
# Defaults of a role or a database; each changes what some statement means, or ends it.
_DEFAULTS = {
    "client_encoding": "LATIN1",
    "TimeZone": "Asia/Tokyo",
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "exit_on_error": "on",
    "gin_fuzzy_search_limit": "5",
    "row_security": "on",
    "search_path": "nowhere",
    "default_table_access_method": _ACCESS_METHOD,
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "synchronous_commit": "off",
    "statement_timeout": "1s",
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "1s",
    "idle_session_timeout": "1s",
    "transaction_timeout": "1s",
}


def _holds(conn: Conn) -> None:
    """The connection means what it is meant to, text goes there and back, and its timeouts are ours."""
    for name, value in connections.stated_for({}).items():
        assert conn.execute("SELECT current_setting(%s)", (name,)).fetchone() == (value,), name
    limits = "SELECT current_setting('transaction_timeout'), current_setting('statement_timeout')"
    assert conn.execute(limits).fetchone() == ("0", "30s")
    assert conn.execute("SELECT convert_to(%s, 'UTF8')", (_TEXT,)).fetchone() == (_TEXT.encode(),)
    assert conn.execute("SELECT %s::text", (_TEXT,)).fetchone() == (_TEXT,)


@pytest.mark.parametrize("name", connections.libpq_variables())
def test_a_variable_of_libpq_does_not_reach_a_server_whose_url_says_everything(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As every command does: the URL is found where a platform with an embedded PostgreSQL runs."""
    Endpoints("", None, None, settings.database_url, settings.redis_url, {"postgres": 1}).write(settings.home)
    monkeypatch.setenv(name, _HOSTILE.get(name, "nonsense"))
    found = connected(Settings(home=settings.home, database_url="", redis_url=""))
    with db.connect(found.database_url, "test") as conn:
        _holds(conn)
    assert name not in os.environ


@pytest.mark.parametrize("name", ["PGCLIENTENCODING", "PGDATESTYLE", "PGGEQO", "PGOPTIONS", "PGTZ", "PGAPPNAME"])
def test_a_variable_that_changes_meaning_reaches_no_server(
    database_url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, _HOSTILE.get(name, "nonsense"))
    with db.connect(database_url, "test") as conn:
        _holds(conn)
        assert conn.execute("SHOW geqo").fetchone() == ("on",)
        assert conn.execute("SHOW application_name").fetchone() == ("pipeline-platform test",)


def test_a_variable_may_say_how_a_server_of_ones_own_is_reached(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = psycopg.conninfo.conninfo_to_dict(database_url)["password"]
    monkeypatch.setenv("PGPASSWORD", str(password))
    with db.connect(database_url.replace(f":{password}@", "@"), "test") as conn:
        _holds(conn)


@pytest.fixture
def hostile(database_url: str, conn: Conn, admin: Conn) -> Iterator[str]:
    """The URL of a role of its own that owns everything in the database."""
    role, name = sql.Identifier(_ROLE), sql.Identifier(conn.info.dbname)
    admin.execute(sql.SQL("DROP ROLE IF EXISTS {0}").format(role))
    admin.execute(sql.SQL("CREATE ROLE {0} SUPERUSER LOGIN PASSWORD 'x'").format(role))
    method = sql.Identifier(_ACCESS_METHOD)
    conn.execute(sql.SQL("CREATE ACCESS METHOD {} TYPE TABLE HANDLER heap_tableam_handler").format(method))
    yield make_conninfo(database_url, user=_ROLE, password="x")
    admin.execute(sql.SQL("ALTER DATABASE {0} RESET ALL").format(name))
    conn.execute(sql.SQL("REASSIGN OWNED BY {0} TO CURRENT_USER").format(role))
    conn.execute(sql.SQL("DROP OWNED BY {0}").format(role))
    admin.execute(sql.SQL("DROP ROLE {0}").format(role))


def _alter(admin: Conn, kind: str, of: str, name: str, value: str) -> None:
    statement = sql.SQL("ALTER {} {} SET {} = {}").format(
        sql.SQL(kind),  # pyright: ignore[reportArgumentType]
        sql.Identifier(of),
        sql.Identifier(name),
        sql.Literal(value),
    )
    admin.execute(statement)


def test_every_stated_setting_has_a_hostile_default_here() -> None:
    assert connections.stated_for({}).keys() <= _DEFAULTS.keys()


@pytest.mark.parametrize("name", _DEFAULTS)
@pytest.mark.parametrize("kind", ["ROLE", "DATABASE"])
def test_a_default_of_the_server_changes_no_session(
    hostile: str, admin: Conn, conn: Conn, kind: str, name: str
) -> None:
    _alter(admin, kind, _ROLE if kind == "ROLE" else conn.info.dbname, name, _DEFAULTS[name])
    with db.connect(hostile, "test") as session:
        _holds(session)


@pytest.mark.parametrize(("name", "value"), [("session_replication_role", "replica"), ("zero_damaged_pages", "on")])
def test_a_default_that_only_a_superuser_may_override_is_refused_with_its_remedy(
    hostile: str, admin: Conn, name: str, value: str
) -> None:
    _alter(admin, "ROLE", _ROLE, name, value)
    with pytest.raises(UnfitServerError, match=rf"{name} is not \w+ for role {_ROLE} .* ALTER ROLE {_ROLE} RESET"):
        db.connect(hostile, "test")
    with pytest.raises(ConfigError):
        asyncio.run(db.connect_async(hostile, "test"))


def test_a_database_that_cannot_hold_every_character_is_refused(servers: dict[str, str], admin: Conn) -> None:
    name = f"latin_{os.getpid()}"
    admin.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0")
    try:
        with pytest.raises(UnfitServerError, match=rf"database {name} .* LATIN1 .* ENCODING 'UTF8'"):
            db.connect(make_conninfo(servers["database_url"], dbname=name), "test")
    finally:
        admin.execute(f"DROP DATABASE {name}")


def test_an_unfit_server_is_waited_for_by_what_runs_and_a_wrong_configuration_at_the_start() -> None:
    error = UnfitServerError("too old")
    assert is_transient(error)
    assert isinstance(error, ConfigError)


def test_hostile_variables_and_defaults_change_nothing_of_what_is_delivered(
    settings: Settings, hostile: str, admin: Conn, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them at once, through a real gateway and a real worker."""
    for name, value in _DEFAULTS.items():
        _alter(admin, "ROLE", _ROLE, name, value)
        _alter(admin, "DATABASE", conn.info.dbname, name, value)
    for name in ("PGCLIENTENCODING", "PGDATESTYLE", "PGGEQO", "PGOPTIONS", "PGTZ", "PGAPPNAME"):
        monkeypatch.setenv(name, _HOSTILE.get(name, "nonsense"))
    key = add_tenant(conn, "acme").write_key
    with Platform(settings.model_copy(update={"database_url": hostile})) as platform:
        platform.start_gateway()
        platform.start_workers(1)
        client = Client(platform.port, key)
        assert client.send([event(event=_TEXT)]).accepted == 1
        client.close()
        found = "SELECT name, convert_to(name, 'UTF8') FROM analytics.events"
        row = wait_for("the event", lambda: conn.execute(found).fetchone())
    assert row == (_TEXT, _TEXT.encode())
