"""Figures formatted for people. Rounding never makes a false statement."""

from datetime import datetime

_GIB = 1 << 30


def number(value: int) -> str:
    """1,234,567."""
    return f"{value:,}"


def rate(value: float | None) -> str:
    """Events a second."""
    if value is None:
        return "–"
    return f"{value:.1f}" if 0 < value < 10 else f"{value:,.0f}"


def share(part: int, whole: int) -> str:
    """A percentage, rounded down: 100% means all."""
    if whole <= 0:
        return "–"
    return "100%" if part == whole else f"{int(part * 10_000 / whole) / 100:.2f}%"


def milliseconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value < 10:
        return f"{value:.1f} ms"
    return f"{value:,.0f} ms" if value < 1_000 else duration(value / 1_000)


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def gibibytes(size: int) -> str:
    return f"{size / _GIB:,.1f} GiB"


def clock(at: datetime) -> str:
    """UTC, to the second."""
    return f"{at:%H:%M:%S}"


def day_and_minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"
