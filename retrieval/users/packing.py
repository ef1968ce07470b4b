"""A history as a few bytes an event: numbers of a dictionary, in columns of varints.

Layout, little-endian: version (1 byte), dictionary id (4), seconds since 1970 of the newest event
(4), events n (2); then LEB128 of n item numbers, of n gaps (seconds before the event before, the
first 0), and of n kind numbers times two, plus one where an explicit weight follows; then those
weights as float32.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.errors import NotReady

ID_BYTES = 4
MAX_SECONDS = 2**32 - 1
MAX_EVENTS = 1_000
_VERSION = 1
_HEADER = struct.Struct("<B4sIH")
_COLUMNS = 3
# Bytes of the largest value, a number below 2**35.
_WIDTHS = range(1, 5)


class History(NamedTuple):
    """Events, newest first.

    items, kinds: (n,) int64 numbers >= 0. seconds: (n,) int64 since 1970, descending.
    weights: (n,) float32 > 0; NaN: that of the kind.
    """

    items: NDArray[np.int64]
    seconds: NDArray[np.int64]
    kinds: NDArray[np.int64]
    weights: NDArray[np.float32]


_NUMBERS = np.zeros(0, np.int64)
NO_HISTORY = History(_NUMBERS, _NUMBERS, _NUMBERS, np.zeros(0, np.float32))


def dictionary_of(blob: bytes) -> bytes:
    """Gives the id of the dictionary that a history was written with."""
    return blob[1 : 1 + ID_BYTES]


def pack(history: History, dictionary_id: bytes) -> bytes:
    """Writes a history.

    Args:
        history: 1..1000 events; numbers below 2**34.
        dictionary_id: 4 bytes.
    """
    seconds = history.seconds
    explicit = ~np.isnan(history.weights)
    columns = (history.items, -np.diff(seconds, prepend=seconds[0]), history.kinds * 2 + explicit)
    header = _HEADER.pack(_VERSION, dictionary_id, int(seconds[0]), len(seconds))
    weights = history.weights[explicit].astype("<f4")
    return header + _varints(np.concatenate(columns)) + weights.tobytes()


def unpack(blob: bytes) -> History:
    """Reads a history.

    Raises: NotReady: another version of Nearline wrote it.
    """
    if blob[0] != _VERSION:
        raise NotReady(
            f"the history of a user has layout {blob[0]}, this Nearline reads {_VERSION}; run the "
            "version that wrote it, or a newer one"
        )
    _, _, newest, count = _HEADER.unpack_from(blob)
    body = np.frombuffer(blob, np.uint8, offset=_HEADER.size)
    # Methods and sums in place: this is read for every recommendation.
    ends = (body < 128).nonzero()[0][: _COLUMNS * count]
    starts = np.empty_like(ends)
    starts[0] = 0
    np.add(ends[:-1], 1, out=starts[1:])
    length = int(ends[-1]) + 1
    place = np.arange(length)
    place -= starts.repeat(ends - starts + 1)
    place *= 7
    bits = (body[:length] & 127).astype(np.int64)
    bits <<= place
    values = np.add.reduceat(bits, starts)
    kinds = values[2 * count :]
    weights = np.full(count, np.nan, np.float32)
    if length < len(body):
        weights[(kinds & 1).astype(bool)] = np.frombuffer(blob, "<f4", offset=_HEADER.size + length)
    seconds = newest - values[count : 2 * count].cumsum()
    return History(values[:count], seconds, kinds >> 1, weights)


def size_of(blob: bytes) -> int:
    """Gives how many events a history has; b"" has none."""
    return int(_HEADER.unpack_from(blob)[3]) if blob else 0


def inserted(history: History, new: History, most: int) -> History:
    """Puts events into a history, each in its place; keeps the `most` newest.

    Args:
        history: Newest first.
        new: In any order of time; those of one second come in their order, before older ones.
        most: >= 1.
    """
    seconds = np.concatenate((new.seconds, history.seconds))
    order = np.argsort(-seconds, kind="stable")[:most]
    return History(
        np.concatenate((new.items, history.items))[order],
        seconds[order],
        np.concatenate((new.kinds, history.kinds))[order],
        np.concatenate((new.weights, history.weights))[order],
    )


def _varints(values: NDArray[np.int64]) -> bytes:
    widths = np.ones(len(values), np.int64)
    for width in _WIDTHS:
        widths += values >= 1 << 7 * width
    ends = np.cumsum(widths)
    place = np.arange(ends[-1]) - np.repeat(ends - widths, widths)
    written = np.repeat(values, widths) >> 7 * place & 127 | 128
    written[ends - 1] &= 127
    return bytes(written.astype(np.uint8))
