"""Points in time: aware datetimes to protobuf and back."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from nearline.errors import InvalidRequest


def in_utc(time: datetime) -> datetime:
    """Returns a time in UTC; a time without a zone is taken as UTC."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def timestamp(time: datetime | None) -> Timestamp | None:
    """Returns the message of a time, or None for None."""
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(in_utc(time))
    return message


def time_from_proto(message: Timestamp, field: str) -> datetime:
    """Returns the time of a message.

    Raises: InvalidRequest: a time outside the years 1 to 9999.
    """
    try:
        return message.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            f"{field} is {message.seconds} s and {message.nanos} ns after 1970, which is not in "
            "the years 1 to 9999",
            field=field,
        ) from error
