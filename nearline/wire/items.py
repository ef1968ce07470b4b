"""Items: contract records to protobuf and back."""

from __future__ import annotations

from nearline import contract as c
from nearline.errors import InvalidRequest
from nearline.times import in_utc
from nearline.v1 import retrieval_pb2
from nearline.vectors import count_rows, decode, pack
from nearline.wire.values import attributes_from_proto, set_attributes, time_from_proto


def item_to_proto(item: c.Item) -> retrieval_pb2.Item:
    """Returns the message of an item.

    Raises: InvalidRequest: an attribute that no message can hold, or invalid Unicode.
    """
    try:
        message = retrieval_pb2.Item(
            id=item.id, title=item.title, text=item.text, version=item.version, section=item.section
        )
        set_attributes(message, item.attributes)
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"item {item.id!r} has a text with half a surrogate pair at position {error.start}; it "
            "is not valid Unicode: decode the source with errors='replace'"
        ) from error
    if item.vector is not None:
        message.vector.CopyFrom(pack(item.vector))
    if item.expires is not None:
        message.expire_time.FromDatetime(in_utc(item.expires))
    return message


def item_from_proto(message: retrieval_pb2.Item, field: str = "item") -> c.Item:
    """Returns the item of a message; numbers of its vector may be NaN or infinite.

    Raises: InvalidRequest: a vector of several rows, or a time outside the years 1 to 9999.
    """
    vector = None
    if message.HasField("vector"):
        rows = count_rows(message.vector, f"{field}.vector")
        if rows != 1:
            raise InvalidRequest(
                f"{field}.vector has {rows} rows; an item has one", field=f"{field}.vector"
            )
        vector = decode(message.vector, f"{field}.vector")[0]
    return c.Item(
        id=message.id,
        title=message.title,
        text=message.text,
        attributes=attributes_from_proto(message.attributes),
        vector=vector,
        expires=(
            time_from_proto(message.expire_time, f"{field}.expire_time")
            if message.HasField("expire_time")
            else None
        ),
        version=message.version,
        section=tuple(message.section),
    )
