"""The mean of judges, by arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs nearline-server[torch]")


def test_the_mean_of_two_judges_is_the_mean_of_what_they_change(rng: np.random.Generator) -> None:
    from benchmarks.answers.average_judges import average

    up, other = rng.normal(size=(6, 1)), rng.normal(size=(6, 1))
    down = rng.normal(size=(1, 4))
    changes = [
        {"0.up.up": one.astype(np.float16), "0.up.down": down.astype(np.float16), "head.bias": bias}
        for one, bias in ((up, np.array([1.0])), (other, np.array([3.0])))
    ]
    mean = average(changes)
    # Both have the same direction, so their mean has rank one, too.
    expected = (up + other) / 2 @ down
    assert np.allclose(mean["0.up.up"] @ mean["0.up.down"], expected, atol=0.02)
    assert mean["head.bias"].tolist() == [2.0]


def test_judges_that_undo_each_other_change_nothing(rng: np.random.Generator) -> None:
    from benchmarks.answers.average_judges import average

    up, down = rng.normal(size=(6, 2)), rng.normal(size=(2, 4))
    mean = average([{"0.up.up": up * sign, "0.up.down": down} for sign in (1.0, -1.0)])
    assert np.allclose(mean["0.up.up"] @ mean["0.up.down"], 0.0)
