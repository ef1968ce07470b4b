"""Keys of items: numbers that stand for ids, the same in every process and every snapshot.

A router knows only the ids of the items that a user had, and shards look items up by number. A key
is computed from the id alone, so neither needs a table of the ids of the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_BYTES = 8


def keys_of(ids: Iterable[str]) -> NDArray[np.uint64]:
    """Returns the keys of ids: (n,) uint64, the first 8 bytes of BLAKE2b of the UTF-8 id.

    Among ten million items, two have the same key with a probability of 3 in a million; one of them
    then counts as the other.
    """
    digests = (blake2b(one.encode(), digest_size=_BYTES).digest() for one in ids)
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64, copy=False)


class ItemKeys(NamedTuple):
    """The keys of all n items of a snapshot.

    keys: (n,) uint64, ascending. numbers: (n,) int32, the number of the item with each key.
    """

    keys: NDArray[np.uint64]
    numbers: NDArray[np.int32]

    @classmethod
    def of(cls, ids: Sequence[str]) -> ItemKeys:
        """Returns the keys of items in order of number."""
        keys = keys_of(ids)
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], order.astype(np.int32))

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Returns the numbers of items with some keys: (n,) int32, -1 for unknown keys."""
        if not len(self.keys):
            return np.full(len(keys), -1, np.int32)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[places] == keys, self.numbers[places], -1).astype(np.int32)
