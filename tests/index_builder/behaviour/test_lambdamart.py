"""Training of trees is deterministic, also alongside another library with its own threads."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import faiss
import lightgbm
import numpy as np
import pytest
from numpy.typing import NDArray

from index_builder.behaviour.lambdamart import LambdaMartOptions, train_trees, unavailable_reason
from retrieval.behaviour.trees import MAX_LEAVES, read_trees


def data() -> tuple[NDArray[np.float32], NDArray[np.bool_], Sequence[int]]:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4000, 5)).astype(np.float32)
    return values, values[:, 1] > 1, [40] * 100


def test_training_finds_the_labels_and_is_deterministic_with_faiss_loaded() -> None:
    values, wanted, sizes = data()
    index = faiss.IndexFlatIP(5)
    index.add(values)
    index.search(values[:500], 5)
    names = [f"f{number}" for number in range(5)]
    texts = [
        train_trees(values, wanted, sizes, names, LambdaMartOptions(trees=5), 0) for _ in range(2)
    ]
    assert texts[0] == texts[1]
    index.search(values[:500], 5)
    trees = read_trees(texts[0])
    assert trees.names == tuple(names) and trees.leaves.shape[0] == 10
    scores = trees.scores(np.ascontiguousarray(values.T))
    assert np.median(scores[wanted]) > scores[~wanted].max()
    assert (
        LambdaMartOptions().leaves == MAX_LEAVES
        and "learning_rate=0.2" in LambdaMartOptions().as_text()
    )


def test_runs_add_up_to_a_model_that_lightgbm_reads() -> None:
    values, wanted, sizes = data()
    names = [f"f{number}" for number in range(5)]

    def text(runs: int, seed: int) -> str:
        return train_trees(values, wanted, sizes, names, LambdaMartOptions(runs, trees=3), seed)

    both = lightgbm.Booster(model_str=text(2, 7))
    assert both.num_trees() == 6
    first, second = (lightgbm.Booster(model_str=text(1, seed)) for seed in (7, 8))
    expected = np.asarray(first.predict(values)) + np.asarray(second.predict(values))
    assert both.predict(values) == pytest.approx(expected)
    ours = read_trees(text(2, 7)).scores(np.ascontiguousarray(values.T))
    assert ours == pytest.approx(both.predict(values), abs=1e-12)


def test_a_missing_library_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert unavailable_reason() == ""
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name == "lightgbm":
            raise OSError("libgomp.so.1: cannot open shared object file")
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "libgomp.so.1" in unavailable_reason() and "libgomp1" in unavailable_reason()
