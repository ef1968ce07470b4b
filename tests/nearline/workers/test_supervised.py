"""A worker process that fails is started again, prepared, and says why it is away."""

from __future__ import annotations

from contextlib import closing

import pytest

from nearline.retry import Backoff
from nearline.workers.process import WorkerProcess, WorkerUnavailable
from nearline.workers.supervised import SupervisedWorker
from tests.nearline.workers.worker import COMMAND

_NOW = Backoff(0.001)


def test_a_worker_that_dies_is_started_again_and_prepared() -> None:
    prepared: list[int] = []
    with closing(
        SupervisedWorker(COMMAND, "test", lambda one: prepared.append(one.pid), pauses=_NOW)
    ) as worker:
        assert worker.wait_ready(60)
        first = worker.pid
        with pytest.raises(WorkerUnavailable, match="signal 6"):
            worker.call("abort", timeout_s=30)
        assert "signal 6" in worker.reason
        _wait_for_another(worker, first)
        assert worker.reason == ""
        assert worker.call("double", timeout_s=30).values["pid"] == worker.pid
        assert prepared == [first, worker.pid]


def test_a_worker_that_gives_wrong_results_can_be_replaced() -> None:
    with closing(SupervisedWorker(COMMAND, "test", pauses=_NOW)) as worker:
        assert worker.wait_ready(60)
        first = worker.pid
        worker.fail("its results are wrong")
        with pytest.raises(WorkerUnavailable, match="its results are wrong"):
            worker.call("double", timeout_s=30)
        _wait_for_another(worker, first)


def test_a_worker_whose_preparation_fails_says_why() -> None:
    def prepare(process: WorkerProcess) -> None:
        process.call("fail", timeout_s=30)

    with closing(SupervisedWorker(COMMAND, "test", prepare, pauses=Backoff(60))) as worker:
        assert not worker.wait_ready(60)
        assert worker.reason == "MemoryError: no room"
        with pytest.raises(WorkerUnavailable, match="no room"):
            worker.call("double", timeout_s=30)


def _wait_for_another(worker: SupervisedWorker, first: int | None) -> None:
    with worker._changed:
        assert worker._changed.wait_for(lambda: worker.pid not in (None, first), 60)
