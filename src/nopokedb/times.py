"""Moments in metadata and filters: text that sorts as time does."""

from __future__ import annotations

from datetime import UTC, datetime

from nopokedb.errors import InvalidInputError


def utc_text(value: datetime, place: str, error: type[InvalidInputError]) -> str:
    """A moment as fixed-width UTC text, so that it sorts as time does: `2024-05-01T12:00:00.000000Z`."""
    if value.tzinfo is None or value.utcoffset() is None:
        raise error(
            f"expected a datetime with a time zone at {place}, got the naive {value.isoformat()}; "
            "use e.g. datetime.now(datetime.UTC)"
        )
    try:
        moved = value.astimezone(UTC)
    except OverflowError:
        raise error(
            f"expected a datetime within the years 1 to 9999 in UTC at {place}, got {value.isoformat()}"
        ) from None
    return moved.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
