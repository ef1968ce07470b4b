"""Factors are trained by a process with a GPU, or on the CPU with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index_builder.behaviour import als
from index_builder.behaviour.als import AlsOptions, train_factors
from index_builder.execution.build_device import BuildDevice
from index_builder.indexes.shard_builder import find_device

scipy_sparse = pytest.importorskip("scipy.sparse")
pytestmark = pytest.mark.service
ROOT = Path(__file__).parents[3]
OPTIONS = AlsOptions(factors=8, iterations=3)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> BuildDevice:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(als, "WORKER", "tests.index_builder.behaviour.als_stand_in")
    monkeypatch.setattr(als, "LEAST_INTERACTIONS", 100)
    return BuildDevice(number=0)


def _matrix() -> Any:
    return scipy_sparse.random(60, 40, 0.2, "csr", np.float32, rng=np.random.default_rng(4))


def test_the_worker_trains_the_factors_with_the_same_confidences(
    gpu: BuildDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPU_STAND_IN", "works")
    made = train_factors(_matrix(), OPTIONS, 7, threads=1, device=gpu)
    assert gpu.notes == []
    # The stand-in's arithmetic is that of the CPU, so all else must be, too.
    expected = train_factors(_matrix(), OPTIONS, 7, threads=1)
    assert np.array_equal(made.vectors, expected.vectors)
    assert np.array_equal(made.gram, expected.gram)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("bare", "implicit trains on a GPU only with CUDA 13 and rmm-cu13"),
        ("killed", "its process was ended by signal 9 (SIGKILL)"),
        ("full", "it needs 2.0 GiB of GPU memory, 0.0 GiB are free"),
        ("undefined", "its factors have shape (40, 8), or are not finite"),
    ],
)
def test_what_fails_on_the_gpu_is_trained_on_the_cpu_with_the_reason(
    behaviour: str, reason: str, gpu: BuildDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPU_STAND_IN", behaviour)
    made = train_factors(_matrix(), OPTIONS, 7, threads=1, device=gpu)
    assert np.array_equal(made.vectors, train_factors(_matrix(), OPTIONS, 7, threads=1).vectors)
    [note] = gpu.notes
    assert note.startswith("factors: trained on the CPU, because ")
    assert reason in note


def test_few_interactions_ask_nothing_of_a_gpu(
    gpu: BuildDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(als, "LEAST_INTERACTIONS", 1_000_000)
    monkeypatch.setattr(als, "WORKER", "there.is.none")
    train_factors(_matrix(), OPTIONS, 7, threads=1, device=gpu)
    assert gpu.notes == []


@pytest.mark.gpu
def test_a_real_gpu_fits_as_the_cpu_does(monkeypatch: pytest.MonkeyPatch) -> None:
    device = find_device("auto")
    if device.number is None:
        pytest.skip("no GPU that the installed FAISS can use")
    monkeypatch.setattr(als, "LEAST_INTERACTIONS", 100)
    options = AlsOptions(factors=32)
    made = train_factors(_matrix(), options, 7, device=device)
    if device.notes:
        pytest.skip(device.notes[0])
    own = train_factors(_matrix(), options, 7, threads=1)
    # The products of factors agree, whatever their rotation.
    wanted, found = (one.vectors @ one.vectors.T for one in (own, made))
    assert np.corrcoef(wanted.ravel(), found.ravel())[0, 1] > 0.9
