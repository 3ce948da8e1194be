"""Logging of every process: lines on standard error, as text or as JSON (setting log_format), without secrets.

Secrets (see redaction.py) are removed from the finished line, so an argument, an exception and a traceback are covered
alike. PostgreSQL quotes data in errors of bad data, so only the kind of such errors is logged. Uncaught errors are
logged too. Modules use `logging.getLogger(__name__)`; names in `extra` become fields of a JSON line.
"""

import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any, cast

import structlog
from structlog.typing import EventDict, ExcInfo, WrappedLogger

from pipeline_platform.errors import is_bad_data, without_values
from pipeline_platform.settings import Settings
from pipeline_platform.telemetry.redaction import Redactor
from pipeline_platform.telemetry.visible import visible_lines

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def set_up_logging(settings: Settings) -> None:
    """Set up logging for the whole process; call it once, before anything is logged."""
    redactor = Redactor(settings)
    handler = logging.StreamHandler()
    handler.setFormatter(_json(redactor) if settings.log_format == "json" else _Text(redactor))
    handler.addFilter(_without_data)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Suppress httpx's line for each request.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda thrown: _log_uncaught(
        thrown.exc_type, thrown.exc_value or thrown.exc_type(), thrown.exc_traceback
    )


class _Text(logging.Formatter):
    def __init__(self, redactor: Redactor) -> None:
        super().__init__(_TEXT)
        self._redactor = redactor

    def formatMessage(self, record: logging.LogRecord) -> str:  # logging's name
        """Indent all lines after the first, so that a client's text cannot forge a record."""
        return super().formatMessage(record).replace("\n", "\n    ")

    def format(self, record: logging.LogRecord) -> str:
        return visible_lines(self._redactor.text(super().format(record)))

    def formatException(self, ei: Any) -> str:
        return traceback_of(ei[1])


def traceback_of(error: BaseException | None) -> str:
    """The traceback as Python prints it, with its causes; errors of bad data without the data they quote."""
    if error is None:
        return ""
    parts = traceback.TracebackException.from_exception(error)
    whole = "".join(parts.format())
    return whole.rstrip() if not _quotes_data(error) else "".join(_bare(error)).rstrip()


def _quotes_data(error: BaseException) -> bool:
    """Whether the error or one of its causes is an error of bad data."""
    return is_bad_data(error) or any(_quotes_data(before) for before in _led_to(error))


def _led_to(error: BaseException) -> list[BaseException]:
    before = error.__cause__ or error.__context__
    grouped = (
        cast("BaseExceptionGroup[BaseException]", error).exceptions if isinstance(error, BaseExceptionGroup) else ()
    )
    return [*([before] if before else []), *grouped]


def _bare(error: BaseException) -> Iterator[str]:
    """The frames and kinds of an error and its causes, the first cause first."""
    for before in _led_to(error):
        yield from _bare(before)
        yield "\nwhich led to:\n\n"
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(error.__traceback__)
    said = f": {without_values(error)}" if is_bad_data(error) else ""
    yield f"{type(error).__module__}.{type(error).__qualname__}{said}\n"


def _without_data(record: logging.LogRecord) -> bool:
    """Filter of the handler: of errors of bad data among the arguments only the kind is kept. Passes every record."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            without_values(each) if isinstance(each, BaseException) and is_bad_data(each) else each
            for each in record.args
        )
    return True


def _json(redactor: Redactor) -> logging.Formatter:
    def clean(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        first = ("timestamp", "level", "logger", "event")
        ordered = {name: event[name] for name in first} | dict(event)
        # A field of uvicorn for terminals.
        ordered.pop("color_message", None)
        return cast("EventDict", redactor.value(ordered))

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.CallsiteParameterAdder({structlog.processors.CallsiteParameter.PROCESS}),
            structlog.processors.ExceptionRenderer(_render),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            clean,
            structlog.processors.JSONRenderer(),
        ],
    )


def _render(exc_info: ExcInfo) -> str:
    return traceback_of(exc_info[1])


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("pipeline_platform").critical("ended by an error", exc_info=(kind, error, trace))
