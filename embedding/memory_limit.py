"""Keeps batches within the memory of a device: halves what does not fit, and remembers the size."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from embedding.backend import Engine, Item_contra, round_up

_log = logging.getLogger(__name__)
# Another process may have held the memory for a while.
_RAISE_AFTER = 512


class MemoryLimitedEngine(Generic[Item_contra]):
    """An `Engine` that runs a batch in parts if the device has no memory for the whole.

    A limit is half of what did not fit. It doubles after 512 batches in a row that fit.

    Args:
        engine: Raises an exception of a class named OutOfMemoryError, as torch does, for a batch
            that does not fit.
    """

    def __init__(self, engine: Engine[Item_contra]) -> None:
        self.width = engine.width
        self.slots = engine.slots
        self.pad_multiple = engine.pad_multiple
        self._engine = engine
        # Guards what the slots share.
        self._lock = threading.Lock()
        self._limit: int | None = None
        self._fitting = 0

    @property
    def token_limit(self) -> int | None:
        """Padded tokens of a batch that is run whole; None: all are."""
        return self._limit

    def run(self, items: Sequence[Item_contra], slot: int) -> NDArray[np.float32]:
        """Runs the model; see `Engine.run`.

        Raises: What the engine raises; of memory only if an item alone does not fit.
        """
        tokens = self._tokens(items)
        if len(items) > 1 and self._limit is not None and tokens > self._limit:
            return self._halves(items, slot)
        try:
            rows = self._engine.run(items, slot)
        except Exception as error:
            if not _is_out_of_memory(error) or len(items) == 1:
                raise
            self._lower(tokens // 2)
        else:
            self._fits()
            return rows
        # Outside the handler: the traceback holds the memory of the failed batch.
        return self._halves(items, slot)

    def _halves(self, items: Sequence[Item_contra], slot: int) -> NDArray[np.float32]:
        middle = len(items) // 2
        return np.concatenate([self.run(items[:middle], slot), self.run(items[middle:], slot)])

    def _tokens(self, items: Sequence[Item_contra]) -> int:
        return len(items) * round_up(max(map(len, items)), self.pad_multiple)

    def _lower(self, tokens: int) -> None:
        with self._lock:
            self._fitting = 0
            if self._limit is not None and self._limit <= tokens:
                return
            self._limit = tokens
        _log.warning(
            "the device has no memory for a batch; smaller ones are run from now on",
            extra={"token_limit": tokens},
        )

    def _fits(self) -> None:
        with self._lock:
            if self._limit is None:
                return
            self._fitting += 1
            if self._fitting >= _RAISE_AFTER:
                self._fitting = 0
                self._limit *= 2


def _is_out_of_memory(error: Exception) -> bool:
    # By name: torch is not imported where nothing runs on it.
    return any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
