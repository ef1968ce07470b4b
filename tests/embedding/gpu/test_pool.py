"""The worker processes of GPUs, with processes that only pretend to have one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from embedding.gpu.pool import GpuPool
from tests.embedding.fakes import expected
from tests.embedding.gpu.fake_gpu import SAMPLE, FakeGpus

pytestmark = pytest.mark.service
ARRAYS = (SAMPLE.ids, SAMPLE.mask)


def until(condition: Callable[[], object]) -> None:
    """Waits until a condition holds; the timeout of the test is the limit."""
    while not condition():
        os.sched_yield()


def test_two_threads_share_a_gpu_and_each_gpu_has_a_process(tmp_path: Path) -> None:
    gpus = FakeGpus(tmp_path)
    with closing(gpus.pool("cuda:0", "cuda:1")) as pool:
        assert (pool.slots, pool.count_gpus(), pool.away) == (4, 2, "")
        assert gpus.pid("cuda:0") != gpus.pid("cuda:1")
        for slot in range(4):
            rows = pool.run(ARRAYS, slot)
            assert rows is not None
            np.testing.assert_array_equal(rows, [expected([2, 9, 3])])
            assert pool.reason(slot) == ""


def test_another_gpu_runs_the_batches_of_one_that_is_out(tmp_path: Path) -> None:
    gpus = FakeGpus(tmp_path)
    with closing(gpus.pool("cuda:0", "cuda:1")) as pool:
        gpus.inject("cuda:0", "kill")
        # The first batch finds out; it is not run on the other GPU, which it might end, too.
        assert pool.run(ARRAYS, 0) is None
        assert pool.reason(0) == "cuda:0: its process was ended by signal 9 (SIGKILL)"
        assert pool.run(ARRAYS, 0) is not None
        assert (pool.reason(0), pool.away) == ("", "")
        assert pool.count_gpus() == 1
        gpus.repair("cuda:0")
        until(lambda: pool.count_gpus() == 2)


def _run(pool: GpuPool) -> str:
    """Runs a batch that the device fails; returns why."""
    assert pool.run(ARRAYS, 0) is None
    return pool.reason(0)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("nan", "it returned a number that is not finite"),
        ("memory", "OutOfMemoryError: CUDA out of memory"),
        ("error", "RuntimeError: CUDA error: an illegal memory access was encountered"),
        ("hang", "it did not answer within 0.5 s"),
    ],
)
def test_a_gpu_that_fails_a_batch_is_out_until_it_works_again(
    fault: str, reason: str, tmp_path: Path
) -> None:
    gpus = FakeGpus(tmp_path)
    with closing(gpus.pool("cuda:0", timeout_s=0.5)) as pool:
        before = gpus.pid("cuda:0")
        gpus.inject("cuda:0", fault)
        assert _run(pool) == f"cuda:0: {reason}"
        assert pool.away.startswith("cuda:0: ")
        gpus.repair("cuda:0")
        until(lambda: not pool.away)
        assert pool.run(ARRAYS, 0) is not None
        assert gpus.pid("cuda:0") != before


def test_a_batch_that_fails_on_a_sound_gpu_leaves_it_in_service(tmp_path: Path) -> None:
    gpus = FakeGpus(tmp_path)
    with closing(gpus.pool("cuda:0")) as pool:
        # Masks of another shape cannot be unpadded.
        assert pool.run((SAMPLE.ids, np.ones((2, 3), np.int64)), 1) is None
        assert pool.reason(1).startswith("cuda:0: ValueError")
        assert pool.away == ""
        assert pool.run(ARRAYS, 1) is not None


@pytest.mark.parametrize("fault", ["wrong", "kill", "hang"])
def test_regular_checks_find_a_sick_gpu_without_a_request(fault: str, tmp_path: Path) -> None:
    gpus = FakeGpus(tmp_path)
    with closing(gpus.pool("cuda:0", timeout_s=0.5, check_every_s=0.02)) as pool:
        gpus.inject("cuda:0", fault)
        until(lambda: pool.away)
        assert pool.run(ARRAYS, 0) is None
        gpus.repair("cuda:0")
        until(lambda: not pool.away)


def test_a_gpu_that_fails_at_the_start_is_not_used(tmp_path: Path) -> None:
    gpus = FakeGpus(tmp_path)
    gpus.inject("cuda:0", "wrong")
    with closing(gpus.pool("cuda:0")) as pool:
        assert pool.away == "cuda:0: its vectors are wrong"
        assert _run(pool) == pool.away


def test_closing_ends_the_processes(tmp_path: Path) -> None:
    gpus = FakeGpus(tmp_path)
    with closing(gpus.pool("cuda:0", "cuda:1")):
        pids = [gpus.pid("cuda:0"), gpus.pid("cuda:1")]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIG_DFL)
