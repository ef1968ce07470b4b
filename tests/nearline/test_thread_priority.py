"""Search threads run after the event loop, however nice the process is already."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

import pytest

from nearline.thread_priority import give_way

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="niceness of threads is Linux's")


def nice_of_a_thread(work: Callable[[], None]) -> list[int]:
    """Returns the niceness of a new thread after work; empty if the thread died of it."""
    seen: list[int] = []

    def run() -> None:
        work()
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return seen


@pytest.mark.parametrize("more", [0, 5, 19])
def test_a_thread_that_gives_way_is_nicer_than_its_process(more: int) -> None:
    nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + more)

    def work() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
        give_way()

    assert nice_of_a_thread(work) == [min(19, nice + 3)]


@pytest.mark.filterwarnings("error")
def test_where_it_is_forbidden_threads_work_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*args: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", forbid)
    assert nice_of_a_thread(give_way)
