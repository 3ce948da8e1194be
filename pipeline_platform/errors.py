"""Errors, named by what happens next."""

import re

import psycopg


class PipelineError(Exception):
    """Any error this platform raises on purpose; the message says the cause and the next step."""


class ConfigError(PipelineError):
    """The configuration cannot work: exit 2."""


class UnfitServerError(ConfigError, psycopg.OperationalError):
    """PostgreSQL answers and cannot be used as it is: exit 2 at the start; what runs waits until it is mended."""


class InvalidEventError(PipelineError):
    """One event can never be written: it goes to quarantine (gateway) or to the dead letters (worker)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class DamagedFileError(PipelineError):
    """A file cannot be read to its end: what was read before is used, the rest is named."""

    def __init__(self, last_line: int | None, why: str) -> None:
        where = "" if last_line is None else f" after line {last_line}"
        super().__init__(f"the file is damaged{where} ({why})")


class RequestRefusedError(PipelineError):
    """A whole request is answered with an error status; nothing of it is stored."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class NotNowError(PipelineError):
    """Nothing is wrong with the request, but it cannot be made durable now: 429 and Retry-After."""


class ServiceError(PipelineError):
    """A process of the platform does not run as it should: the message ends with its log. Exit 1."""


class ClosedGateError(PipelineError):
    """A phase may not be entered yet; the message names what its gate waits for: exit 1."""


class NoSuchThingError(PipelineError):
    """What a command names does not exist: exit 1."""


# What goes away by itself: the work is kept, waits and is tried again, and no attempt is counted.
TRANSIENT_SQLSTATES = frozenset({
    "40001", "40P01",  # serialization failure, deadlock
    "55P03", "57014",  # lock and statement time-out
    "53000", "53100", "53200", "53300", "53400",  # resources: disk, memory, connections
    "57P01", "57P02", "57P03", "57P05",  # shutting down, crashed, starting, idle too long
    "58000", "58030",  # the system below, input and output
    "25P03", "25P04", "25006",  # transaction time-outs; read-only after a failover
})  # fmt: skip


def is_transient(error: BaseException) -> bool:
    """True where waiting helps: the connection is gone or the server says so. Never true of bad data."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate in TRANSIENT_SQLSTATES or error.sqlstate.startswith("08")


def is_bad_data(error: BaseException) -> bool:
    """True where one of the rows cannot be written, whatever we wait (classes 22, 23 and 54)."""
    return isinstance(error, psycopg.Error) and (error.sqlstate or "")[:2] in {"22", "23", "54"}


_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")


def without_values(error: BaseException) -> str:
    """What an error of bad data says, without what it quotes of the data; of any other all that it says.

    For whatever leaves the platform's own tables: logs, Dagster, alerts.
    """
    if not is_bad_data(error):
        return str(error).strip()
    assert isinstance(error, psycopg.Error)
    first = error.diag.message_primary or (str(error).splitlines() or [""])[0]
    return f"{_QUOTED.sub('[removed]', first)} (SQLSTATE {error.sqlstate})"
