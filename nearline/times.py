"""Times in UTC; in files and in the change log, whole microseconds since 1970."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
DAY_US = 86_400 * SECOND_US
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def in_utc(value: date) -> datetime:
    """Returns a time in UTC, which is read as UTC if it has no zone; of a day, its first moment.

    Raises: ValueError: in UTC, it is outside the years 1 to 9999.
    """
    if not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    try:
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError(f"in UTC, {value} is outside the years 1 to 9999") from None


def to_us(time: datetime) -> int:
    """Returns an aware time in microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND


def from_us(time_us: int) -> datetime:
    """Returns microseconds since 1970 as an aware time."""
    return _EPOCH + timedelta(microseconds=time_us)
