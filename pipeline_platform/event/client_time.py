"""Times as clients write them."""

from datetime import UTC, datetime


def parse_time(text: str) -> datetime | None:
    """An ISO 8601 time as an aware UTC datetime. No zone means UTC. None if it cannot be used.

    Lower-case t and z are valid in RFC 3339. Python 3.11 reads only the t.
    """
    try:
        if text.endswith("z"):
            text = text[:-1] + "Z"
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
