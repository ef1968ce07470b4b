"""A worker process that fails is started again, prepared, and says why it is away."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import closing

import pytest

from nearline.retry import Backoff
from nearline.workers.process import WorkerProcess, WorkerUnavailable
from nearline.workers.supervisor import SupervisedWorker
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


def test_a_worker_that_dies_while_it_is_idle_is_started_again() -> None:
    with closing(SupervisedWorker(COMMAND, "test", pauses=_NOW)) as worker:
        assert worker.wait_ready(60)
        first = worker.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        _wait_for_another(worker, first)


def test_a_worker_that_fails_a_check_is_started_again() -> None:
    checked: list[int] = []

    def check(process: WorkerProcess) -> None:
        checked.append(process.pid)
        if len(checked) == 2:
            raise MemoryError

    with closing(
        SupervisedWorker(COMMAND, "test", check=check, check_every_s=0.001, pauses=_NOW)
    ) as worker:
        assert worker.wait_ready(60)
        first = worker.pid
        _wait_for_another(worker, first)
        assert checked[:2] == [first, first]


def test_whatever_preparation_raises_is_a_reason() -> None:
    def prepare(process: WorkerProcess) -> None:
        raise MemoryError

    with closing(SupervisedWorker(COMMAND, "test", prepare, pauses=Backoff(60))) as worker:
        assert not worker.wait_ready(60)
        assert worker.reason == "MemoryError"


def test_a_worker_that_is_starting_can_be_closed() -> None:
    preparing = threading.Event()

    def prepare(process: WorkerProcess) -> None:
        preparing.set()
        process.call("hang", timeout_s=60)

    worker = SupervisedWorker(COMMAND, "test", prepare, pauses=_NOW)
    assert preparing.wait(60)
    start = time.monotonic()
    worker.close()
    assert time.monotonic() - start < 30


def test_signals_to_the_whole_group_do_not_end_a_worker() -> None:
    with closing(SupervisedWorker(COMMAND, "test", pauses=Backoff(60))) as worker:
        assert worker.wait_ready(60)
        assert worker.pid is not None
        for one in (signal.SIGTERM, signal.SIGINT):
            os.kill(worker.pid, one)
        assert worker.call("double", timeout_s=30).values["pid"] == worker.pid
