"""Reports the failure of a command: one sentence on standard error and an exit code, never a traceback on the screen.

Unexpected errors are written with their traceback to ``home/logs/cli.log``, and the sentence names that file. Secrets
are removed from both.
"""

import io
import os
import tempfile
import traceback
from pathlib import Path

import psycopg
import redis
import typer

from pipeline_platform.cli.output import log_console
from pipeline_platform.errors import ConfigError, PipelineError, is_transient
from pipeline_platform.local.services.process import open_log
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.redaction import Redactor, holds_secret
from pipeline_platform.telemetry.terminal import lines

_WRONG, _FAILED = 2, 1
_UNREACHABLE = ("08", "57P", "28")
# The given value does not fit a column, a type or an encoding. The user must give another one.
_BAD_VALUES = (psycopg.DataError, OverflowError, UnicodeError)


def end_of(error: BaseException) -> int:
    """Print why the command failed; returns its exit code."""
    usage = _usage(error)
    if usage is not None:
        return _say(usage, getattr(error, "exit_code", _WRONG), "")
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return _say("pipeline-platform: interrupted", _FAILED)
    if isinstance(error, BrokenPipeError):
        # The reader closed the pipe. Discard the rest of the output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _FAILED
    sentence, code = _sentence(error)
    return _say(f"pipeline-platform: {sentence}", code)


def _sentence(error: BaseException) -> tuple[str, int]:
    if isinstance(error, ConfigError):
        return str(error), _WRONG
    if isinstance(error, PipelineError):
        return str(error), _FAILED
    if isinstance(error, psycopg.OperationalError) and (error.sqlstate or "08").startswith(_UNREACHABLE):
        return (
            f"PostgreSQL does not answer: {str(error).strip()}. Does the platform run? See: pipeline-platform status",
            _FAILED,
        )
    if is_transient(error):
        return f"PostgreSQL cannot do this now: {_first_line(error)}. Try again", _FAILED
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedFunction):
        return f"the database has another schema ({_first_line(error)}): run pipeline-platform migrate", _WRONG
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return f"the database's user may not do this: {_first_line(error)}", _WRONG
    if isinstance(error, redis.RedisError):
        return f"Redis refuses or does not answer: {_first_line(error)}. See: pipeline-platform doctor", _FAILED
    if isinstance(error, _BAD_VALUES):
        return f"a given value cannot be used: {_first_line(error)}. {_noted(error)}", _WRONG
    if isinstance(error, OSError) and error.strerror is not None:
        # Without a file name it is a stream, for example output to a full disk.
        return f"{error.filename or 'input or output'}: {error.strerror}", _FAILED
    return f"unexpected {type(error).__name__}: {_first_line(error)}. {_noted(error)}", _FAILED


def _usage(error: BaseException) -> str | None:
    """The parser's message about wrong usage, with the names that it knows; None for any other error."""
    show = getattr(error, "show", None)
    if show is None:
        return None
    said = io.StringIO()
    show(file=said)
    return said.getvalue().rstrip("\n")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or "it says no more"


def _noted(error: BaseException) -> str:
    """Write the traceback to the log; returns the sentence that names the log."""
    text = without_secrets("".join(traceback.format_exception(error)))
    for directory in (_home() / "logs", Path(tempfile.gettempdir()) / f"pipeline-platform-{os.geteuid()}"):
        path = directory / "cli.log"
        try:
            with open_log(path) as log:
                os.write(log, text.encode(errors="backslashreplace"))
        except OSError:
            continue
        return f"The traceback is in {path}"
    return "The traceback could not be written anywhere"


def _home() -> Path:
    try:
        return Settings.read().home.resolve()
    except (ConfigError, OSError):
        return Path(".pipeline").resolve()


def without_secrets(text: str) -> str:
    """The text without the secrets of the environment, also if a setting is wrong."""
    try:
        settings = Settings.read()
    except ConfigError:
        names = [name for name in Settings.model_fields if holds_secret(name)]
        given = {name: os.environ.get(f"PIPELINE_{name.upper()}", "") for name in names}
        settings = Settings.model_construct(None, **given)
    return Redactor(settings).text(text)


def _say(text: str, code: int, style: str = "red") -> int:
    log_console.print(lines(without_secrets(text)), style=style, soft_wrap=True)
    return code
