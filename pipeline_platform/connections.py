"""Session settings that are stated by each connection, so that environment and server defaults cannot change results.

libpq takes omitted parameters from variables (PGTZ, PGCLIENTENCODING, PGSSLMODE…), and PostgreSQL takes omitted
settings from defaults of the server, the database and the role. Every setting that changes the meaning of a statement
is stated here and compared after connecting, because a pooler may refuse or drop it. For a server of the user's own,
the environment may say where it is and how it is reached; for an embedded one it may not.
"""

import os
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString, cast

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from pipeline_platform.errors import UnfitServerError

OLDEST = 17  # transaction_timeout

# Settings that change the meaning of a statement, with the values that all queries expect. Any role may set these.
_STATED: Mapping[str, str] = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    "gin_fuzzy_search_limit": "0",
    "exit_on_error": "off",
    # Rows hidden by a policy raise an error instead of making a sum smaller.
    "row_security": "off",
    "search_path": "public",
    "default_table_access_method": "heap",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "synchronous_commit": "on",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}
# Only a superuser may set these. They must have their defaults, else triggers or damaged pages would be skipped.
_UNTOUCHED: Mapping[str, str] = {"session_replication_role": "origin", "zero_damaged_pages": "off"}
_LATER = "transaction_timeout"  # unknown to servers older than `OLDEST`, which have an error of their own
# The last of the options: if it arrived, all of them did.
_MARK = "pipeline_platform.stated"

# libpq sends these after the options, so they would override them.
_OVERRIDING = ("PGTZ", "PGDATESTYLE", "PGGEQO", "PGCLIENTENCODING", "PGOPTIONS", "PGAPPNAME")
_BESIDE = ("PGSERVICEFILE", "PGSYSCONFDIR", "PGREQUIRESSL", "PGLOCALEDIR")


def libpq_variables() -> list[str]:
    """Every variable of the environment that libpq reads when it connects."""
    known = [option.envvar.decode() for option in pq.Conninfo.get_defaults() if option.envvar]
    return sorted({*known, *_OVERRIDING, *_BESIDE})


def forget_libpq_variables() -> None:
    """Remove all of them from this process and its later children: for servers whose URL is complete."""
    for name in libpq_variables():
        os.environ.pop(name, None)


def options_of(settings: Mapping[str, str]) -> str:
    """`settings` as libpq's parameter `options`."""
    return " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in settings.items())


def stated_for(more: Mapping[str, str]) -> dict[str, str]:
    """The settings that a session states; `more` overrides."""
    return {**_STATED, **more}


class Session:
    """The settings of one connection: how it is opened, and how its session is checked."""

    def __init__(self, who: str, statement_timeout_s: float, lock_timeout_s: float, more: str) -> None:
        given = dict(re.findall(r"-c (\w+)=(\S+)", more))
        self._who = who
        self._transaction_timeout = given.pop(_LATER, "0")
        self._stated = stated_for(given)
        self._limits = {
            "statement_timeout": str(int(statement_timeout_s * 1000)),
            "lock_timeout": str(int(lock_timeout_s * 1000)),
        }

    def parameters(self, url: str) -> dict[str, Any]:
        """Parameters of a connection to `url`. Removes the variables that would override them from the environment."""
        for name in _OVERRIDING:
            os.environ.pop(name, None)
        own = str(conninfo_to_dict(url).get("options") or "")
        return {
            "application_name": f"pipeline-platform {self._who}",
            "client_encoding": "UTF8",
            "options": f"{own} {options_of(self._limits | self._stated | {_MARK: 'on'})}".strip(),
            "connect_timeout": 5,
            "autocommit": True,
            "keepalives_idle": 10,
            "tcp_user_timeout": 15_000,
        }

    @property
    def proof(self) -> LiteralString:
        """A statement that sets what could not be set at connecting, and returns the current settings."""
        shown = ", ".join(f"current_setting('{name}', true)" for name in (*_UNTOUCHED, _MARK, *self._stated))
        text = f"SELECT set_config('{_LATER}', '{self._transaction_timeout}', false), {shown}"
        return cast("LiteralString", text)  # made of names and values in this code

    def check(self, info: psycopg.ConnectionInfo, row: Sequence[Any] | None) -> None:
        """UnfitServerError if the row of `proof` differs from what was stated."""
        assert row
        found: dict[str, Any] = dict(zip((*_UNTOUCHED, _MARK, *self._stated), row[1:], strict=True))
        for name, value in _UNTOUCHED.items():
            if found.pop(name) != value:
                raise UnfitServerError(
                    f"{name} is not {value} for role {info.user} in database {info.dbname} of {_place(info)}: "
                    f"ALTER ROLE {info.user} RESET {name}, and ALTER DATABASE {info.dbname} RESET {name}"
                )
        swallowed = found.pop(_MARK) != "on"
        # PostgreSQL shows a time or a size in another unit than it was given in.
        wrong = [name for name, value in self._stated.items() if found[name] != value and not value.isdigit()]
        if swallowed or wrong:
            named = f"({', '.join(wrong)}) " if wrong else ""
            raise UnfitServerError(
                f"what a connection states {named}does not reach PostgreSQL at {_place(info)}. "
                "A pooler is between? Let PIPELINE_DATABASE_URL name PostgreSQL itself"
            )


def check_server(info: psycopg.ConnectionInfo) -> None:
    """UnfitServerError if the server is too old, or the database cannot hold every character."""
    if info.server_version < OLDEST * 10_000:
        version = info.parameter_status("server_version")
        raise UnfitServerError(
            f"PostgreSQL at {_place(info)} is {version}, and {OLDEST} is the oldest that works: upgrade it, or leave "
            "PIPELINE_DATABASE_URL empty for an embedded server"
        )
    encoding = info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise UnfitServerError(
            f"database {info.dbname} of {_place(info)} is in {encoding} and cannot hold every character: "
            f"CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8', and name that in PIPELINE_DATABASE_URL"
        )


@contextmanager
def in_plain_words() -> Generator[None]:
    """Around connecting: turns a pooler's error about the options into one with the remedy."""
    try:
        yield
    except psycopg.OperationalError as error:
        if "unsupported startup parameter" not in str(error):
            raise
        raise UnfitServerError(
            f"what a connection states is refused ({str(error).strip()}): a pooler is between. "
            "Let PIPELINE_DATABASE_URL name PostgreSQL itself"
        ) from error


@contextmanager
def migrations_in_plain_words() -> Generator[None]:
    """Around applying migrations: turns a server's refusal into an error with the remedy."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise UnfitServerError(
            f"the role of PIPELINE_DATABASE_URL may not apply the migrations ({error.diag.message_primary}): let it "
            "own the database (ALTER DATABASE … OWNER TO …), or use the role that applied the others"
        ) from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise UnfitServerError(
            f"the database takes no writes ({error.diag.message_primary}): let PIPELINE_DATABASE_URL name the primary "
            "(host=a,b with target_session_attrs=read-write finds it)"
        ) from error


def _place(info: psycopg.ConnectionInfo) -> str:
    return f"{info.host}:{info.port}"
