"""The model of order: what it learns, its gradient, and how it is stored and served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from index_builder.behaviour import sequence_trainer
from index_builder.behaviour.sequence_trainer import POSITIONS, train_sequences
from index_builder.interactions.records import Interactions
from nearline.errors import SnapshotCorrupt
from retrieval.behaviour.factors import OrderedFactors
from retrieval.behaviour.history import History
from retrieval.behaviour.sequences import (
    SequenceGenerator,
    SequenceModel,
    read_sequences,
    sequence_arrays,
)
from tests.index_builder.behaviour.circular_walks import walks

torch = pytest.importorskip("torch", reason="compares with torch's gradients")


def _rows(sequences: list[list[int]], items: int) -> Interactions:
    user = np.repeat(np.arange(len(sequences)), [len(one) for one in sequences]).astype(np.int32)
    item = np.concatenate([np.empty(0, np.int32), *(np.array(one) for one in sequences)])
    times = np.arange(len(item), dtype=np.int64)
    return Interactions(
        [f"u{one}" for one in range(len(sequences))],
        [f"i{one}" for one in range(items)],
        user,
        item.astype(np.int32),
        times,
        np.ones(len(item), np.float32),
    )


def _circle(users: int, items: int, length: int, seed: int = 0) -> Interactions:
    """Everybody goes around the same circle of items, from a random place."""
    starts = np.random.default_rng(seed).integers(0, items, users)
    return _rows([[(start + step) % items for step in range(length)] for start in starts], items)


def _next(model: SequenceModel, newest_first: list[int], items: int) -> int:
    history = History(
        np.array(newest_first, np.int32),
        np.arange(len(newest_first), dtype=np.int64)[::-1],
        np.ones(len(newest_first), np.float32),
    )
    rows, scores = SequenceGenerator(model).best(history, np.ones(items, np.bool_), 5)
    return int(rows[np.argmax(scores)])


def test_the_item_that_always_comes_next_is_first() -> None:
    items = 60
    (model,) = train_sequences([_circle(400, items, 8)])
    assert model is not None
    right = [_next(model, [at, at - 1], items) == (at + 1) % items for at in range(1, items)]
    # The item before is as near to another as the item after: only the direction tells.
    assert np.mean(right) > 0.95


def test_a_later_window_learns_what_an_earlier_one_did_not_know() -> None:
    items = 40
    later = _circle(300, items, 8)
    first, second = train_sequences([later.some(later.item < 20), later])
    assert first is not None and second is not None
    assert not first.vectors[20:].any() and first.vectors[:20].any(axis=1).all()
    assert np.mean([_next(second, [at], items) == at + 1 for at in range(22, 38)]) > 0.9


def test_training_twice_gives_the_same_bits() -> None:
    (one,), (two,) = (train_sequences([walks()], seed=3) for _ in range(2))
    assert one is not None and two is not None
    for left, right in zip(one[:4], two[:4], strict=True):
        assert np.array_equal(left, right)


def test_a_model_is_the_mean_of_the_ends_of_the_last_cycles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = iter([1, 2, 6, 10, 20, 60])

    def cycle(trainer: sequence_trainer._Trainer, *_: object) -> None:
        end = next(ends)
        for array in trainer._arrays:
            array[:] = end

    monkeypatch.setattr(sequence_trainer._Trainer, "_cycle", cycle)
    found = train_sequences([walks(), walks()])
    for model, mean in zip(found, (3, 30), strict=True):
        assert model is not None
        for array in model[:4]:
            np.testing.assert_allclose(array, mean, rtol=1e-6)


def test_nothing_to_learn_and_too_many_items_give_no_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert train_sequences([_rows([[0], [1], [1]], 2)]) == [None]
    assert train_sequences([_rows([[]], 2)]) == [None]
    monkeypatch.setattr(sequence_trainer, "MAX_ITEMS", 1)
    assert train_sequences([_rows([[0, 1]], 2)]) == [None]


@given(st.lists(st.integers(0, 3 * POSITIONS + 2), min_size=1, max_size=6))
def test_each_item_but_a_users_first_is_predicted_once(lengths: list[int]) -> None:
    rows = _rows([list(range(length)) for length in lengths], 3 * POSITIONS + 3)
    found = sequence_trainer._sequences(rows)
    assert (found.stops - found.starts <= POSITIONS + 1).all()
    predicted = [
        place
        for start, stop in zip(found.starts, found.stops, strict=True)
        for place in range(start + 1, stop)
    ]
    begins = np.cumsum([0, *lengths])[:-1].tolist()
    assert sorted(predicted) == sorted(set(range(len(rows.item))) - set(begins))


def test_a_step_follows_the_gradient_that_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    items = 30
    vectors = rng.standard_normal((items, sequence_trainer.WIDTH)).astype(np.float32) * 0.2
    trainer = sequence_trainer._Trainer(vectors.copy(), 0)
    before = [one.copy() for one in trainer._arrays]
    monkeypatch.setattr(sequence_trainer, "_DROPOUT", np.float32(0))
    monkeypatch.setattr(sequence_trainer, "_NEGATIVES", 8)
    found: dict[int, np.ndarray] = {}

    def keep(adam: object, gradient: np.ndarray, rate: float, rows: Any = slice(None)) -> None:
        whole = (items, *gradient.shape[1:]) if not isinstance(rows, slice) else gradient.shape
        found[id(adam)] = np.zeros(whole)
        found[id(adam)][rows] = gradient

    monkeypatch.setattr(sequence_trainer._Adam, "step", keep)
    batch = np.array([[-1, -1, 4, 7], [3, 9, 3, 1]])
    drawn = np.arange(20, 28)
    monkeypatch.setattr(
        trainer, "_rng", type("Drawn", (), {"integers": lambda *_: drawn, "random": _ones})()
    )
    trainer._step(batch, np.arange(items, dtype=np.int32), 0.1)
    leaves = [torch.tensor(one, dtype=torch.float64, requires_grad=True) for one in before]
    _loss(batch, drawn, leaves).backward()
    for adam, leaf in zip(trainer._adams, leaves, strict=True):
        np.testing.assert_allclose(found[id(adam)], leaf.grad.numpy(), atol=1e-6)


def _ones(_: object, shape: tuple[int, ...], kind: type) -> np.ndarray:
    return np.ones(shape, kind)


def _loss(batch: np.ndarray, drawn: np.ndarray, leaves: list[Any]) -> Any:
    """Returns the mean loss, place by place, as `SequenceModel` defines the score."""
    vectors, decay, transition, bias = leaves
    losses = []
    for row in batch:
        known = [one for one in row if one >= 0]
        for at in range(1, len(known)):
            newest = known[:at][::-1]
            pooled = sum(torch.exp(decay[k]) * vectors[one] for k, one in enumerate(newest))
            user = pooled + pooled @ transition + bias
            scores = torch.cat([(user @ vectors[known[at]])[None], vectors[drawn] @ user])
            losses.append(torch.logsumexp(scores, 0) - scores[0])
    return sum(losses) / len(losses)


def test_a_model_is_read_as_it_was_written_and_damage_is_refused(tmp_path: Path) -> None:
    (model,) = train_sequences([walks()])
    assert model is not None
    for name, array in sequence_arrays(model).items():
        np.save(tmp_path / f"{name}.npy", array)
    count = len(model.vectors)
    again = read_sequences(tmp_path, count)
    for left, right in zip(model[:4], again[:4], strict=True):
        assert np.array_equal(left, right)
    with pytest.raises(SnapshotCorrupt, match="rebuild the snapshot"):
        read_sequences(tmp_path, count + 1)
    np.save(tmp_path / "sequence.decay.npy", np.full(POSITIONS, np.inf, np.float32))
    with pytest.raises(SnapshotCorrupt, match="not finite"):
        read_sequences(tmp_path, count)


def test_shards_find_together_what_one_finds_alone() -> None:
    rng = np.random.default_rng(1)
    (model,) = train_sequences([_circle(200, 50, 8)])
    assert model is not None
    history = History(
        np.array([4, 3], np.int32), np.array([2, 1], np.int64), np.ones(2, np.float32)
    )
    whole = SequenceGenerator(model).best(history, np.ones(50, np.bool_), 10)
    of_shard = rng.integers(0, 2, 50)
    parts = []
    for shard in (0, 1):
        numbers = np.flatnonzero(of_shard == shard)
        own = OrderedFactors.of(model.vectors[numbers])
        rows, scores = SequenceGenerator(model._replace(own=own)).best(
            history, np.ones(len(numbers), np.bool_), 10
        )
        parts += list(zip(numbers[rows].tolist(), scores.tolist(), strict=True))
    parts.sort(key=lambda one: (-one[1], one[0]))
    assert {one for one, _ in parts[:10]} == set(whole.rows.tolist())
