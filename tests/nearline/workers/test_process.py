"""Calls of a child process: arrays, errors, limits, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nearline.workers.process import (
    WorkerCommand,
    WorkerError,
    WorkerProcess,
    WorkerUnavailable,
)
from tests.nearline.workers.worker import COMMAND

_ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def process() -> Iterator[WorkerProcess]:
    with closing(WorkerProcess.start(COMMAND)) as started:
        yield started


def test_arrays_of_every_shape_come_back(process: WorkerProcess) -> None:
    arrays: list[NDArray[Any]] = [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.empty((0, 4), np.float16),
        np.array(7, np.int64),
        np.arange(1_000_000, dtype=np.int64)[::2],
    ]
    reply = process.call("double", arrays=arrays, timeout_s=30)
    assert reply.values == {"pid": process.pid}
    for sent, received in zip(arrays, reply.arrays, strict=True):
        assert received.dtype == sent.dtype
        np.testing.assert_array_equal(received, 2 * sent)


def test_an_exception_is_the_reply_and_the_worker_goes_on(process: WorkerProcess) -> None:
    with pytest.raises(WorkerError, match=r"^MemoryError: no room$") as caught:
        process.call("fail", timeout_s=30)
    assert caught.value.kind == "MemoryError"
    with pytest.raises(WorkerError, match="KeyError"):
        process.call("unknown", timeout_s=30)
    assert process.call("double", timeout_s=30).values["pid"] == process.pid


def test_a_channel_answers_while_another_is_busy() -> None:
    with closing(WorkerProcess.start(COMMAND)) as process:
        errors: list[Exception] = []

        def hang() -> None:
            try:
                process.call("hang", timeout_s=60, channel=1)
            except WorkerUnavailable as error:
                errors.append(error)

        thread = threading.Thread(target=hang)
        thread.start()
        assert process.call("double", timeout_s=30).values["pid"] == process.pid
        process.close()
        thread.join()
        assert "signal 9 (SIGKILL)" in str(errors[0])


def test_no_reply_in_time_is_a_failure() -> None:
    with closing(WorkerProcess.start(COMMAND)) as process:
        with pytest.raises(WorkerUnavailable, match=r"did not answer within 0\.1 s"):
            process.call("hang", timeout_s=0.1)


def test_a_process_that_cannot_start_says_so() -> None:
    with pytest.raises(WorkerUnavailable, match="its process ended with status 1"):
        WorkerProcess.start(WorkerCommand("tests.nearline.no_such_module"))


def test_the_child_ends_with_its_parent() -> None:
    code = (
        "import os, signal; from tests.nearline.workers.worker import COMMAND\n"
        "from nearline.workers.process import WorkerProcess\n"
        "print(WorkerProcess.start(COMMAND).pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    parent = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, stdout=subprocess.PIPE)
    assert parent.returncode == -signal.SIGKILL
    child = int(parent.stdout)
    # Its pidfd is readable once it has ended; it may be gone already.
    try:
        number = os.pidfd_open(child)
    except ProcessLookupError:
        return
    import select

    assert select.select([number], [], [], 30)[0]
    os.close(number)
