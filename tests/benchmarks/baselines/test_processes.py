"""Tests of what is read of a process."""

from __future__ import annotations

import os
import time

from benchmarks.baselines.processes import cpu_seconds


def test_cpu_seconds_are_those_of_the_process() -> None:
    before = time.process_time()
    mine = cpu_seconds([os.getpid()])
    assert before <= mine <= time.process_time()


def test_cpu_seconds_of_processes_are_summed() -> None:
    one = cpu_seconds([os.getpid()])
    two = cpu_seconds([os.getpid(), os.getpid()])
    assert 2 * one <= two <= 2 * time.process_time()
