"""Errors, named by their consequence."""

import re

import psycopg


class PipelineError(Exception):
    """Base of all errors that this platform raises on purpose. The message gives the cause and the next step."""


class ConfigError(PipelineError):
    """The configuration is invalid: exit 2."""


class UnfitServerError(ConfigError, psycopg.OperationalError):
    """PostgreSQL answers but cannot be used: exit 2 at the start; running processes wait until it is repaired."""


class InvalidEventError(PipelineError):
    """One event can never be written: it goes to quarantine (gateway) or to the dead letters (worker)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class DamagedFileError(PipelineError):
    """A file cannot be read to its end: the part before is used, the damage is reported."""

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
    """The request is valid, but it cannot be made durable now: 429 and Retry-After."""


class ServiceError(PipelineError):
    """A process of the platform does not run correctly; the message ends with its log. Exit 1."""


class ClosedGateError(PipelineError):
    """A phase may not be entered yet; the message names the conditions of its gate that do not hold. Exit 1."""


class NoSuchThingError(PipelineError):
    """A thing that a command names does not exist: exit 1."""


# Errors that pass by themselves: the work is kept and tried again later, and nothing is counted.
TRANSIENT_SQLSTATES = frozenset({
    "40001", "40P01",  # serialization failure, deadlock
    "55P03", "57014",  # lock and statement time-out
    "53000", "53100", "53200", "53300", "53400",  # resources: disk, memory, connections
    "57P01", "57P02", "57P03", "57P05",  # shutting down, crashed, starting, idle too long
    "58000", "58030",  # the system below, input and output
    "25P03", "25P04", "25006",  # transaction time-outs; read-only after a failover
})  # fmt: skip


def is_transient(error: BaseException) -> bool:
    """Whether waiting helps: the connection is gone, or the server reports such a state. Never true for bad data."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate in TRANSIENT_SQLSTATES or error.sqlstate.startswith("08")


def is_bad_data(error: BaseException) -> bool:
    """Whether a row cannot be written, however often it is tried (classes 22, 23 and 54)."""
    return isinstance(error, psycopg.Error) and (error.sqlstate or "")[:2] in {"22", "23", "54"}


_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")


def without_values(error: BaseException) -> str:
    """The message of an error, without quoted data if it is an error of bad data.

    For everything outside the platform's own tables: logs, Dagster, alerts.
    """
    if not is_bad_data(error):
        return str(error).strip()
    assert isinstance(error, psycopg.Error)
    first = error.diag.message_primary or (str(error).splitlines() or [""])[0]
    return f"{_QUOTED.sub('[removed]', first)} (SQLSTATE {error.sqlstate})"
