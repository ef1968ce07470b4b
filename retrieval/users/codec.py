"""Encodes histories in a few bytes per event: dictionary numbers, in columns."""

from __future__ import annotations

import operator
from itertools import accumulate
from typing import NamedTuple

from google.protobuf.message import DecodeError

from nearline import wire
from nearline.contract import Attributes
from nearline.errors import NotReady
from nearline.internal.v1 import state_pb2

ID_BYTES = 4
MAX_EVENTS = 1_000
_VERSION = 2


class EncodedHistory(NamedTuple):
    """Columns of events, newest first, of equal length.

    items, kinds: Numbers >= 0. seconds: Since 1970, descending. weights: > 0, in float32 precision;
    None uses the weight of the kind.
    """

    items: list[int]
    seconds: list[int]
    kinds: list[int]
    weights: list[float | None]


NO_HISTORY = EncodedHistory([], [], [], [])


class PackedHistory(NamedTuple):
    """A history, and the 4-byte id of the dictionary that it is encoded with."""

    dictionary_id: bytes
    history: EncodedHistory


def pack(history: EncodedHistory, dictionary_id: bytes) -> bytes:
    """Encodes a history of 1..1000 events.

    Args:
        dictionary_id: 4 bytes.
    """
    items, seconds, kinds, weights = history
    message = state_pb2.History(
        version=_VERSION,
        dictionary=dictionary_id,
        newest=seconds[0],
        items=items,
        gaps=map(operator.sub, seconds, seconds[1:]),
        kinds=kinds[:1] if kinds.count(kinds[0]) == len(kinds) else kinds,
    )
    if any(weights):
        message.weights.extend(weight or 0.0 for weight in weights)
    return message.SerializeToString()


def unpack(blob: bytes) -> PackedHistory:
    """Decodes a history.

    Raises: NotReady: another version of Nearline wrote it.
    """
    message = _read(blob)
    items = list(message.items)
    kinds = list(message.kinds)
    weights: list[float | None] = [None] * len(items)
    if message.weights:
        weights = [weight or None for weight in message.weights]
    seconds = list(accumulate(message.gaps, operator.sub, initial=message.newest))
    if len(kinds) == 1:
        kinds *= len(items)
    return PackedHistory(message.dictionary, EncodedHistory(items, seconds, kinds, weights))


def event_count(blob: bytes) -> int:
    """Returns the number of events of a history; 0 for b""."""
    return len(_read(blob).items) if blob else 0


def pack_attributes(attributes: Attributes) -> bytes:
    """Encodes the attributes of a user, equal ones as equal bytes; b"" for none."""
    message = state_pb2.UserAttributes(values=wire.values_by_name(attributes))
    return message.SerializeToString(deterministic=True)


def unpack_attributes(blob: bytes) -> Attributes:
    """Decodes the attributes of a user."""
    if not blob:
        return {}
    return wire.attributes_from_proto(state_pb2.UserAttributes.FromString(blob).values)


def insert_events(history: EncodedHistory, new: EncodedHistory, most: int) -> EncodedHistory:
    """Inserts events into a history in order of time and keeps the newest.

    Args:
        history: Newest first.
        new: In any order. Within one second, they keep their order and precede those of `history`.
        most: Events to keep, >= 1.
    """
    rows = [*zip(*new, strict=True), *zip(*history, strict=True)]
    kept = sorted(rows, key=operator.itemgetter(1), reverse=True)[:most]
    return EncodedHistory(*map(list, zip(*kept, strict=True)))


def _read(blob: bytes) -> state_pb2.History:
    try:
        message = state_pb2.History.FromString(blob)
    except DecodeError:
        message = state_pb2.History()
    if message.version != _VERSION:
        raise NotReady(
            f"the history of a user has layout {message.version}, this Nearline reads {_VERSION}; "
            "run the version that wrote it, or a newer one"
        )
    return message
