"""The file of an import: read twice, first counted by hour, then cut into chunks that are the same in every run."""

import hashlib
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pipeline_platform.errors import ConfigError, InvalidEventError
from pipeline_platform.event.client_time import parse_time
from pipeline_platform.event.ndjson import (
    numbered,
    open_lines,
    peek_text,
    pieces,
    read_object,
    write_object,
)
from pipeline_platform.tenants.tenants import take_tenant

# Must never change: a half-done import would continue with different chunks.
CHUNK_EVENTS = 1_000
# Times outside these years are mistakes. If one were the last time, the shift would move all others out of range.
_FIRST_YEAR, _LAST_YEAR = 1970, 2200
_SAMPLES = 20


@dataclass(frozen=True, slots=True)
class Line:
    """One event of the file. received_at: as in the file, not shifted; None: the file has none."""

    tenant: str
    payload: bytes
    received_at: datetime | None


@dataclass(slots=True)
class Survey:
    """The contents of a file: lines by unshifted second (UTC), tenants, the last time, and unreadable lines."""

    digest: str
    seconds: dict[datetime | None, int] = field(default_factory=dict[datetime | None, int])
    tenants: set[str] = field(default_factory=set[str])
    last: datetime | None = None
    bad_lines: int = 0
    bad_line_samples: list[str] = field(default_factory=list[str])

    @property
    def events(self) -> int:
        return sum(self.seconds.values())


@dataclass(frozen=True, slots=True)
class Source:
    """A file and how to read it. received_at_field None: events are received when they are imported."""

    path: str
    tenant_field: str
    received_at_field: str | None
    line_bytes_max: int

    def lines(self, on_bad: Callable[[int, InvalidEventError], None]) -> Iterator[Line]:
        """All lines that name a tenant and, if required, a time."""
        with open_lines(self.path) as lines:
            for number, line in numbered(lines, self.line_bytes_max):
                try:
                    if isinstance(line, InvalidEventError):
                        raise line
                    yield self._line(line)
                except InvalidEventError as error:
                    on_bad(number, error)

    def _line(self, line: bytes) -> Line:
        fields = read_object(line)
        tenant = take_tenant(fields, self.tenant_field)
        received_at = None
        if self.received_at_field is not None:
            received_at = parse_time(peek_text(fields.get(self.received_at_field)) or "")
            if received_at is None or not _FIRST_YEAR <= received_at.year <= _LAST_YEAR:
                raise InvalidEventError("missing_field", f"no usable time in the field {self.received_at_field}")
        return Line(tenant, write_object(fields), received_at)

    def survey(self, options: str, progress: Callable[[int], None]) -> Survey:
        """Read the whole file once."""
        found = Survey(self._digest(options))

        def on_bad(number: int, error: InvalidEventError) -> None:
            found.bad_lines += 1
            if len(found.bad_line_samples) < _SAMPLES:
                found.bad_line_samples.append(f"line {number}: {error}")

        for line in self.lines(on_bad):
            second = line.received_at.replace(microsecond=0) if line.received_at else None
            found.seconds[second] = found.seconds.get(second, 0) + 1
            found.tenants.add(line.tenant)
            if line.received_at:
                found.last = max(found.last or line.received_at, line.received_at)
            progress(1)
        return found

    def _digest(self, options: str) -> str:
        digest = hashlib.sha256(f"{self.tenant_field}|{self.received_at_field}|{options}|".encode())
        with open_lines(self.path) as content:
            for piece in pieces(content):
                digest.update(piece)
        return digest.hexdigest()


@contextmanager
def readable_twice(path: str) -> Generator[str]:
    """The path of a file; standard input is copied to a temporary file. ConfigError if there is no file."""
    if path != "-":
        if not Path(path).exists():
            raise ConfigError(f"no file {path}")
        if not Path(path).is_file():
            raise ConfigError(f"{path} is no file that can be read twice: give it as standard input, with -")
        yield path
        return
    with open_lines("-") as stream, tempfile.NamedTemporaryFile(prefix="pipeline-import-") as spool:
        for piece in pieces(stream):
            spool.write(piece)
        spool.flush()
        yield spool.name


def hour_of(at: datetime) -> datetime:
    """The UTC hour that contains a time."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
