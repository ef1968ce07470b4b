"""Vectors of items in the order in which users have them, and of a user's sequence."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.errors import SnapshotCorrupt
from retrieval.behaviour.factors import OrderedFactors
from retrieval.behaviour.history import History
from retrieval.behaviour.table_files import REMEDY, read_array
from retrieval.protocols.scored_rows import NO_ROWS, ScoredRows

# Name of the model, of its table, and of its files.
SEQUENCE: Final = "sequence"


class SequenceModel(NamedTuple):
    """Predicts the next item of a sequence.

        u = y + y M + b,   y = sum over k of exp(decay_k) v(i_k)
    where i_0 is the newest item and v its vector. An item scores u v. This is a Markov chain of
    higher order whose transitions are products of vectors (He and McAuley, 2016, "Fossil"), with
    one set of vectors for both sides, and M to tell before from after.

    vectors: (items, f) float32; 0 for items that it does not know. decay: (positions,) float32.
    transition: (f, f) float32, M. bias: (f,) float32, b. own: The items that may be candidates;
    None: all of `vectors`.
    """

    vectors: NDArray[np.float32]
    decay: NDArray[np.float32]
    transition: NDArray[np.float32]
    bias: NDArray[np.float32]
    own: OrderedFactors | None = None

    def user_vector(self, items: NDArray[np.int32]) -> NDArray[np.float32]:
        """Returns the vector of a sequence: (f,) float32.

        Args:
            items: (n,) item numbers, newest first.
        """
        newest = items[: len(self.decay)]
        pooled = np.exp(self.decay[: len(newest)]) @ self.vectors[newest]
        found: NDArray[np.float32] = pooled + pooled @ self.transition + self.bias
        return found


class SequenceGenerator(NamedTuple):
    """Scores items by how likely they come next in the user's sequence."""

    model: SequenceModel

    def best(self, history: History, allowed: NDArray[np.bool_], most: int) -> ScoredRows:
        """Returns the best allowed items, with scores of any sign; none for an empty history."""
        if not len(history.items):
            return NO_ROWS
        user = self.model.user_vector(history.items)
        own = self.model.own or OrderedFactors.of(self.model.vectors)
        return own.nearest_to_each([user], allowed, most)[0]


def sequence_arrays(model: SequenceModel) -> dict[str, NDArray[np.float32]]:
    """Returns the arrays that store a model, by the names of their files."""
    weights = np.vstack([model.transition, model.bias])
    return {
        SEQUENCE: model.vectors,
        f"{SEQUENCE}.decay": model.decay,
        f"{SEQUENCE}.transition": weights,
    }


def read_sequences(folder: Path, items: int) -> SequenceModel:
    """Reads the model of `items` items; mapped.

    Raises: SnapshotCorrupt: the files do not fit together.
    """
    vectors = read_array(folder / f"{SEQUENCE}.npy", np.float32, (items, None))
    width = vectors.shape[1]
    decay = read_array(folder / f"{SEQUENCE}.decay.npy", np.float32, (None,))
    weights = read_array(folder / f"{SEQUENCE}.transition.npy", np.float32, (width + 1, width))
    for array in (vectors, decay, weights):
        if not np.isfinite(array).all():
            raise SnapshotCorrupt(f"{folder / SEQUENCE}* has numbers that are not finite; {REMEDY}")
    return SequenceModel(vectors, np.array(decay), np.array(weights[:-1]), np.array(weights[-1]))
