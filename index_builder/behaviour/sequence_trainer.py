"""Trains the model of order: which item comes next in the sequence of a user's interactions.

The loss is softmax over the next item and items drawn at random, as in SASRec with sampled softmax
(Klenitskiy and Vasilev, 2023; Tikhonovich et al., 2025, "eSASRec"). Vectors begin as those of
PPMI, which factorise what comes near what (Levy and Goldberg, 2014): on the shared reviews, two
epochs then reach what takes thirty from random vectors. See ADR 52 for the choice of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, count, islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from index_builder.behaviour.session_cooccurrence import SessionOptions, mutual_information
from index_builder.interactions.records import Interactions
from retrieval.behaviour.sequences import SequenceModel

# More items than this take gigabytes and minutes before the first step.
MAX_ITEMS = 200_000
WIDTH = 64
POSITIONS = 50
# A model is the mean of the vectors at the ends of its cycles. Alone, the last end had an NDCG@10
# of 0.0643 on the shared reviews and 0.1104 on the films, the mean 0.0661 and 0.1150.
_CYCLES = 3
# Of a cycle, of which a build has twelve: with more than half a million interactions, not all are
# read four times in one.
_EPOCHS, _MAX_STEPS = 4, 2_000
_NEGATIVES = 1_024
# Interactions of a step: a fiftieth of all, within these limits.
_LEAST_STEP, _MOST_STEP = 64, 1_024
_RATE = 0.004
# Each step moves the vectors of few items, so these go faster. So does the decay, a few numbers.
_VECTOR_RATE, _DECAY_RATE = 10.0, 3.0
_RISE = 0.1
_DROPOUT = np.float32(0.3)
# Items within five interactions are near; each one between them takes a fifth of the weight.
_NEAR = SessionOptions(window=5, decay=4.5)
_MAX_PAIRED = 2_000_000
_SCALE = 0.1
_EXCLUDED = np.float32(-1e9)

_Floats = NDArray[np.float32]


def train_sequences(
    windows: Sequence[Interactions],
    seed: int = 0,
    done: Callable[[float], None] = lambda seconds: None,
) -> list[SequenceModel | None]:
    """Trains a model for each window; deterministic.

    A later window begins where the one before ended, which is why earlier windows must be parts of
    later ones.

    Args:
        windows: Interactions with items of the same numbers, each part of the next.
        done: Called with the seconds that finished parts were estimated to take.
    Returns: A model of each window; None if there is nothing to learn from, or more than
        `MAX_ITEMS` items.
    """
    found: list[SequenceModel | None] = []
    trainer: _Trainer | None = None
    with threadpool_limits(1):
        for rows in windows:
            sequences = _sequences(rows)
            if len(rows.items) <= MAX_ITEMS and len(sequences.starts):
                trainer = trainer or _Trainer(_near_vectors(rows, seed), seed)
                found.append(trainer.fit(sequences))
            else:
                found.append(None)
            done(sequence_seconds(rows))
    return found


def sequence_seconds(rows: Interactions) -> float:
    """Returns an estimate of the seconds that one model takes."""
    read = _CYCLES * min(_EPOCHS * len(rows.user), _MAX_STEPS * _MOST_STEP)
    return 1e-5 * read + 1e-4 * len(rows.items)


class _Sequences(NamedTuple):
    """Interactions in order of user and time, cut into pieces of at most `POSITIONS` + 1.

    Pieces of one user overlap by an item, so each item but a user's first is predicted once.

    items: (n,) int32. starts, stops: (p,) int64, the pieces.
    """

    items: NDArray[np.int32]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]


def _sequences(rows: Interactions) -> _Sequences:
    ordered = rows.by_time()
    ends = np.flatnonzero(np.diff(ordered.user, append=-1)) + 1
    begins = np.concatenate(([0], ends[:-1]))
    starts, stops = [], []
    while len(ends):
        more = ends - begins >= 2
        begins, ends = begins[more], ends[more]
        starts.append(np.maximum(begins, ends - POSITIONS - 1))
        stops.append(ends)
        ends = ends - POSITIONS
    return _Sequences(
        ordered.item,
        np.concatenate([np.empty(0, np.int64), *starts]),
        np.concatenate([np.empty(0, np.int64), *stops]),
    )


def _near_vectors(rows: Interactions, seed: int) -> _Floats:
    """Returns the leading eigenvectors of the positive mutual information of near items."""
    items = len(rows.items)
    if len(rows.item) > _MAX_PAIRED:
        newest = np.partition(rows.time_us, -_MAX_PAIRED)[-_MAX_PAIRED]
        rows = rows.some(rows.time_us >= newest)
    positive = mutual_information(rows, _NEAR)
    # Subspace iteration (Halko et al., 2011): the matrix is symmetric.
    basis = np.random.default_rng(seed).standard_normal((items, WIDTH + 16)).astype(np.float32)
    for _ in range(6):
        basis = np.linalg.qr(positive @ basis)[0]
    values, rotation = np.linalg.eigh(basis.T @ (positive @ basis))
    best = np.argsort(-values)[:WIDTH]
    found = (basis @ rotation[:, best]) * np.sqrt(np.maximum(values[best], 0))
    vectors = np.zeros((items, WIDTH), np.float32)
    vectors[:, : found.shape[1]] = found
    scale = np.sqrt(np.mean(vectors[positive.getnnz(axis=1) > 0] ** 2)) if positive.nnz else 0
    return vectors * np.float32(_SCALE / scale) if scale else vectors


class _Adam:
    """Adam (Kingma and Ba, 2015) for some rows of an array at a time."""

    def __init__(self, array: _Floats) -> None:
        self._array = array
        self._mean, self._square = np.zeros_like(array), np.zeros_like(array)
        self._steps = 0

    def step(self, gradient: _Floats, rate: float, rows: Any = slice(None)) -> None:
        self._steps += 1
        mean = self._mean[rows] = 0.9 * self._mean[rows] + np.float32(0.1) * gradient
        square = self._square[rows] = 0.98 * self._square[rows] + np.float32(0.02) * gradient**2
        step = mean / (np.sqrt(square / np.float32(1 - 0.98**self._steps)) + np.float32(1e-8))
        self._array[rows] -= np.float32(rate / (1 - 0.9**self._steps)) * step


class _Trainer:
    def __init__(self, vectors: _Floats, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._vectors = vectors
        self._decay = -0.4 * np.arange(POSITIONS, dtype=np.float32)
        spread = np.float32(0.5 / np.sqrt(WIDTH))
        self._transition = self._rng.standard_normal((WIDTH, WIDTH), np.float32) * spread
        self._bias = np.zeros(WIDTH, np.float32)
        self._arrays = (self._vectors, self._decay, self._transition, self._bias)
        self._adams = [_Adam(one) for one in self._arrays]

    def fit(self, sequences: _Sequences) -> SequenceModel:
        """Trains in cycles, each of which starts where the one before ended; returns their mean.

        The ends err in different ways, so the errors partly cancel in the mean: Izmailov et al.,
        2018, "Averaging weights leads to wider optima and better generalization".
        """
        # Items without interactions have a vector of 0, and keep it.
        known = np.unique(sequences.items)
        means = [np.zeros_like(one) for one in self._arrays]
        for number in range(_CYCLES):
            self._cycle(sequences, known)
            for mean, end in zip(means, self._arrays, strict=True):
                mean += (end - mean) / np.float32(number + 1)
        vectors, decay, transition, bias = means
        return SequenceModel(vectors, decay, transition, bias)

    def _cycle(self, sequences: _Sequences, known: NDArray[np.int32]) -> None:
        """Trains on all pieces, in random order, while the rate rises and then falls to 0."""
        first = self._batches(sequences)
        steps = min(_MAX_STEPS, _EPOCHS * len(first))
        others = chain.from_iterable(self._batches(sequences) for _ in count())
        for at, batch in enumerate(islice(chain(first, others), steps)):
            part = at / steps
            fall = 0.5 + 0.5 * np.cos(np.pi * (part - _RISE) / (1 - _RISE))
            self._step(_padded(sequences, batch), known, _RATE * min(part / _RISE, fall))

    def _batches(self, sequences: _Sequences) -> list[NDArray[np.int64]]:
        """Returns the pieces in batches of similar lengths, with `_MOST_STEP` items at most."""
        lengths = sequences.stops - sequences.starts
        most = min(max(len(sequences.items) // 50, _LEAST_STEP), _MOST_STEP)
        order = self._rng.permutation(len(lengths))
        order = order[np.argsort(lengths[order] // 4, kind="stable")]
        longest = np.maximum.accumulate(lengths[order])
        batches = []
        start = 0
        while start < len(order):
            longest_so_far = longest[start : start + most]
            sizes = np.arange(1, len(longest_so_far) + 1) * longest_so_far
            fits = int(np.searchsorted(sizes, most, "right"))
            batches.append(order[start : start + max(fits, 1)])
            start += max(fits, 1)
        return [batches[at] for at in self._rng.permutation(len(batches)).tolist()]

    def _step(self, items: NDArray[np.int64], known: NDArray[np.int32], rate: float) -> None:
        """Moves the model down the gradient of a batch.

        Args:
            items: (b, t + 1) item numbers, oldest first, padded in front by -1.
            known: Items that may be drawn.
        """
        before, after = items[:, :-1], items[:, 1:]
        size, length = before.shape
        at = np.flatnonzero(before.ravel() >= 0)
        drawn = known[self._rng.integers(0, len(known), min(_NEGATIVES, 4 * len(known)))]
        targets = after.ravel()[at]
        # Forward: the vector of the sequence up to each place.
        kept = self._dropped((size, length, WIDTH)) * (before >= 0)[..., None]
        inputs = self._vectors[before] * kept
        distance = np.arange(length)[:, None] - np.arange(length)
        weights = np.where(distance >= 0, np.exp(self._decay)[np.maximum(distance, 0)], 0)
        pooled = (weights.astype(np.float32) @ inputs).reshape(-1, WIDTH)[at]
        moved = self._dropped((len(at), WIDTH))
        users = pooled + (pooled @ self._transition + self._bias) * moved
        # Softmax over the next item and those drawn.
        right, wrong = self._vectors[targets], self._vectors[drawn]
        scores = users @ wrong.T
        scores[targets[:, None] == drawn] = _EXCLUDED
        of_right = np.einsum("nf,nf->n", users, right)
        most = np.maximum(of_right, scores.max(axis=1))
        share = np.exp(scores - most[:, None])
        of_right = np.exp(of_right - most)
        total = of_right + share.sum(axis=1)
        share /= total[:, None] * len(at)
        of_right = (of_right / total - 1) / len(at)
        # Backward.
        to_users = of_right[:, None] * right + share @ wrong
        to_moved = to_users * moved
        to_pooled = np.zeros((size * length, WIDTH), np.float32)
        to_pooled[at] = to_users + to_moved @ self._transition.T
        to_pooled = to_pooled.reshape(size, length, WIDTH)
        to_inputs = ((weights.T.astype(np.float32) @ to_pooled) * kept).reshape(-1, WIDTH)[at]
        to_weights = np.tensordot(to_pooled, inputs, ((0, 2), (0, 2))) * weights
        to_decay = np.zeros_like(self._decay)
        to_decay[:length] = np.bincount(np.maximum(distance, 0).ravel(), to_weights.ravel(), length)
        rows = np.concatenate([before.ravel()[at], targets, drawn])
        moves = np.concatenate([to_inputs, of_right[:, None] * users, share.T @ users])
        order = np.argsort(rows, kind="stable")
        touched, firsts = np.unique(rows[order], return_index=True)
        vectors, decay, transition, bias = self._adams
        vectors.step(np.add.reduceat(moves[order], firsts), rate * _VECTOR_RATE, touched)
        decay.step(to_decay, rate * _DECAY_RATE)
        transition.step(pooled.T @ to_moved, rate)
        bias.step(to_moved.sum(axis=0), rate)

    def _dropped(self, shape: tuple[int, ...]) -> _Floats:
        """Returns 0 for a share of `_DROPOUT`, and otherwise what keeps the mean at 1."""
        kept = self._rng.random(shape, np.float32) >= _DROPOUT
        return kept.astype(np.float32) / (1 - _DROPOUT)


def _padded(sequences: _Sequences, pieces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the items of some pieces, padded in front by -1."""
    starts, stops = sequences.starts[pieces], sequences.stops[pieces]
    length = int((stops - starts).max())
    places = stops[:, None] - length + np.arange(length)
    inside = places >= starts[:, None]
    return np.where(inside, sequences.items[np.maximum(places, 0)], -1)
