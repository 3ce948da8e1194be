"""Times as clients write them."""

from datetime import UTC, datetime


def parse_time(text: str) -> datetime | None:
    """An ISO 8601 time as an aware UTC datetime; no zone means UTC; None where it cannot be used."""
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
