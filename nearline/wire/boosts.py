"""Boosts: contract records to protobuf and back."""

from __future__ import annotations

from nearline import contract as c
from nearline.errors import InvalidRequest
from nearline.v1 import retrieval_pb2
from nearline.wire.enums import DECAY_SHAPE_OF, DECAY_SHAPES, lookup
from nearline.wire.limits import LIMITS, bounded
from nearline.wire.values import scalar_from_proto, value_to_proto


def boost_to_proto(boost: c.Boost, field: str) -> retrieval_pb2.Boost:
    """Returns the message of a boost.

    Args:
        boost: The boost.
        field: Its path, for errors.
    Raises: InvalidRequest: not exactly one of any_of, growth and decay is set, or not exactly one
        of pivot and top; the service checks the rest.
    """
    check_boost(boost, field)
    message = retrieval_pb2.Boost(field=boost.field, weight=boost.weight)
    if boost.any_of:
        message.any_of.values.extend(map(value_to_proto, boost.any_of))
    elif boost.growth is not None:
        message.growth.CopyFrom(
            retrieval_pb2.BoostGrowth(pivot=boost.growth.pivot, top=boost.growth.top)
        )
    elif boost.decay is not None:
        decay = boost.decay
        message.decay.CopyFrom(
            retrieval_pb2.BoostDecay(
                origin=None if decay.origin is None else value_to_proto(decay.origin),
                scale=decay.scale,
                offset=decay.offset,
                decay=decay.decay,
                shape=DECAY_SHAPES[decay.shape],
            )
        )
    return message


def boost_from_proto(message: retrieval_pb2.Boost, field: str) -> c.Boost:
    """Returns the boost of a message; the service checks its values.

    Raises: InvalidRequest: there are too many values, or one is a list; unknown enum number.
    """
    growth: c.Growth | None = None
    decay: c.Decay | None = None
    few = LIMITS["BoostAnyOf.values"]._replace(least=0)
    values = bounded(message.any_of.values, f"{field}.any_of.values", few)
    if message.HasField("growth"):
        one = message.growth
        growth = c.Growth(
            pivot=one.pivot if one.HasField("pivot") else None,
            top=one.top if one.HasField("top") else None,
        )
    elif message.HasField("decay"):
        found = message.decay
        decay = c.Decay(
            origin=scalar_from_proto(found.origin) if found.HasField("origin") else None,
            scale=found.scale,
            offset=found.offset,
            decay=found.decay if found.HasField("decay") else 0.5,
            shape=lookup(DECAY_SHAPE_OF, found.shape, f"{field}.decay.shape"),
        )
    return c.Boost(
        field=message.field,
        weight=message.weight if message.HasField("weight") else 1.0,
        any_of=tuple(map(scalar_from_proto, values)),
        growth=growth,
        decay=decay,
    )


def check_boost(boost: c.Boost, field: str) -> None:
    """Raises InvalidRequest unless a boost has exactly one value, and growth exactly one shape."""
    count = bool(boost.any_of) + (boost.growth is not None) + (boost.decay is not None)
    if count != 1:
        raise InvalidRequest(
            f"{field} has {count} of any_of, growth and decay; set exactly one", field=field
        )
    growth = boost.growth
    if growth is not None and (growth.pivot is None) == (growth.top is None):
        raise InvalidRequest(
            f"{field}.growth has {0 if growth.pivot is None else 2} of pivot and top; set exactly "
            "one",
            field=f"{field}.growth",
        )
