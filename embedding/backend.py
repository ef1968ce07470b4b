"""Protocols between the batcher and an engine that runs the model."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Item_contra = TypeVar("Item_contra", bound=Sized, contravariant=True)


class Engine(Protocol[Item_contra]):
    """An engine of the batcher: turns items into rows of numbers. An item's len is its token count.

    width: Number of columns of a row. slots, pad_multiple: See `Backend`.
    """

    @property
    def width(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def pad_multiple(self) -> int: ...

    def run(self, items: Sequence[Item_contra], slot: int) -> NDArray[np.float32]:
        """Runs the model in the calling thread; see `Backend.embed`.

        Returns: (n, width) float32, row i for items[i].
        """
        ...


class Fallback(Protocol):
    """Says when the CPU stands in for the GPUs of an engine.

    away: Why no GPU answers; empty if one does. budget: Padded tokens of a batch for the CPU.
    configured_gpus: The number of GPUs that should answer.
    """

    @property
    def away(self) -> str: ...
    @property
    def budget(self) -> int: ...

    @property
    def configured_gpus(self) -> int: ...

    def count_gpus(self) -> int:
        """Returns the number of GPUs that answer."""
        ...

    def close(self) -> None:
        """Releases the GPUs."""
        ...

    def reason(self, slot: int) -> str:
        """Returns why the last batch of a slot ran on the CPU; empty if it ran on a GPU."""
        ...


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Token ids of n texts, padded on the right to one length.

    ids, mask: (n, longest) int64, C order; mask is 1 where a token is, 0 where padding is.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]


class Backend(Protocol):
    """A loaded model, including pooling and normalisation.

    name: Engine and precision, for example "openvino-bf16".
    dim: Number of components of a vector.
    slots: Number of concurrent batches; each slot belongs to one thread.
    pad_multiple: Lengths are padded to a multiple of this number, because fewer shapes may run
        faster.
    """

    @property
    def name(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def pad_multiple(self) -> int: ...

    def embed(self, batch: TokenBatch, slot: int) -> NDArray[np.float32]:
        """Runs the model, in the calling thread, without holding the interpreter's lock.

        Args:
            batch: The texts; at least one.
            slot: 0 <= slot < slots; never used by two threads at once.
        Returns: (n, dim) float32, unit length, owned by the caller.
        Raises: Any exception; the batch then counts as failed, and the slot stays usable.
        """
        ...


class PaddedBackend:
    """An `Engine` of token ids, (length,) int64 each, over a `Backend`.

    Args:
        backend: The backend.
        pad_id: Token id of padding.
    """

    def __init__(self, backend: Backend, pad_id: int = 0) -> None:
        self.width = backend.dim
        self.slots = backend.slots
        self.pad_multiple = backend.pad_multiple
        self._backend = backend
        self._pad_id = pad_id

    def run(self, items: Sequence[NDArray[np.int64]], slot: int) -> NDArray[np.float32]:
        """Pads the texts and embeds them; see `Backend.embed`."""
        return self._backend.embed(pad(items, self._pad_id, self.pad_multiple), slot)


def round_up(length: int, multiple: int) -> int:
    """Returns the smallest multiple that is not below the length."""
    return -(-length // multiple) * multiple


def pad(sequences: Sequence[NDArray[np.int64]], pad_id: int, multiple: int) -> TokenBatch:
    """Pads token ids of n texts to the longest, rounded up to the multiple."""
    longest = round_up(max(len(sequence) for sequence in sequences), multiple)
    ids = np.full((len(sequences), longest), pad_id, np.int64)
    mask = np.zeros((len(sequences), longest), np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return TokenBatch(ids, mask)


def unpad(batch: TokenBatch) -> list[NDArray[np.int64]]:
    """Returns the token ids of each text of a batch."""
    lengths = batch.mask.sum(axis=1).tolist()
    return [row[:length] for row, length in zip(batch.ids, lengths, strict=True)]
