"""Batches on a device of little memory: a fake that says how many padded tokens it can hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from embedding.batcher import Batcher
from embedding.memory_limit import MemoryLimitedEngine
from nearline.contract import Lane
from nearline.errors import InternalError


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class SmallDevice:
    """An engine that returns the sum of each item, and holds a number of padded tokens."""

    width = 1
    slots = 1

    def __init__(self, memory: int, pad_multiple: int = 1) -> None:
        self.memory = memory
        self.pad_multiple = pad_multiple
        self.tried: list[int] = []

    def run(self, items: Sequence[NDArray[np.int64]], slot: int) -> NDArray[np.float32]:
        longest = -(-max(map(len, items)) // self.pad_multiple) * self.pad_multiple
        self.tried.append(len(items) * longest)
        if self.tried[-1] > self.memory:
            raise OutOfMemoryError("CUDA out of memory")
        return np.array([[item.sum()] for item in items], np.float32)


def _items(lengths: Sequence[int]) -> list[NDArray[np.int64]]:
    return [np.arange(1, length + 1) for length in lengths]


@given(
    st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=12), min_size=1, max_size=8),
    st.integers(24, 200),
    st.sampled_from([1, 8]),
)
def test_every_batch_of_items_that_fit_alone_has_its_rows_in_order(
    batches: list[list[int]], memory: int, pad_multiple: int
) -> None:
    engine = MemoryLimitedEngine(SmallDevice(memory, pad_multiple))
    for lengths in batches:
        rows = engine.run(_items(lengths), 0)
        assert rows[:, 0].tolist() == [n * (n + 1) / 2 for n in lengths]


def test_a_size_that_did_not_fit_is_not_tried_again() -> None:
    device = SmallDevice(25)
    engine = MemoryLimitedEngine(device)
    engine.run(_items([10] * 8), 0)
    assert device.tried == [80, 40, 20, 20, 20, 20]
    assert engine.token_limit == 20
    device.tried.clear()
    engine.run(_items([10] * 8), 0)
    assert device.tried == [20, 20, 20, 20]


def test_a_limit_is_raised_once_batches_have_fitted_for_long() -> None:
    device = SmallDevice(25)
    engine = MemoryLimitedEngine(device)
    engine.run(_items([10] * 8), 0)
    device.memory = 1_000
    for _ in range(511):
        engine.run(_items([10]), 0)
    assert engine.token_limit == 40
    device.tried.clear()
    engine.run(_items([10] * 4), 0)
    assert device.tried == [40]


def test_batches_that_fitted_before_a_lack_of_memory_do_not_raise_the_limit_after_it() -> None:
    device = SmallDevice(25)
    engine = MemoryLimitedEngine(device)
    engine.run(_items([10] * 8), 0)
    for memory, limit in ((25, 20), (15, 10)):
        device.memory = memory
        engine.run(_items([10] * 2), 0)
        for _ in range(400):
            engine.run(_items([10]), 0)
        assert engine.token_limit == limit


def test_a_larger_batch_that_fails_later_does_not_raise_the_limit() -> None:
    class TwoSlots(SmallDevice):
        def run(self, items: Sequence[NDArray[np.int64]], slot: int) -> NDArray[np.float32]:
            if len(items) == 8:
                # Meanwhile, the other slot finds the limit.
                engine.run(_items([10] * 4), 1)
            return super().run(items, slot)

    device = TwoSlots(25)
    engine = MemoryLimitedEngine(device)
    engine.run(_items([10] * 8), 0)
    assert device.tried == [40, 20, 20, 80, 20, 20, 20, 20]


def test_an_item_that_does_not_fit_alone_fails_and_lowers_no_limit() -> None:
    engine = MemoryLimitedEngine(SmallDevice(25))
    with pytest.raises(OutOfMemoryError):
        engine.run(_items([30]), 0)
    assert engine.token_limit is None


def test_another_failure_is_not_taken_for_a_lack_of_memory() -> None:
    class Broken(SmallDevice):
        def run(self, items: Sequence[NDArray[np.int64]], slot: int) -> NDArray[np.float32]:
            raise RuntimeError("device-side assert triggered")

    engine = MemoryLimitedEngine(Broken(25))
    with pytest.raises(RuntimeError, match="device-side"):
        engine.run(_items([10] * 8), 0)
    assert engine.token_limit is None


async def test_requests_are_answered_while_the_device_lacks_memory() -> None:
    device = SmallDevice(64)
    batcher = Batcher(MemoryLimitedEngine(device), budget=512, max_queued_tokens=10_000)
    batcher.start()
    try:
        done = await asyncio.gather(
            *(batcher.infer(_items([16] * 8), Lane.BULK) for _ in range(20))
        )
        assert all((one.rows == 136).all() for one in done)
        with pytest.raises(InternalError):
            await batcher.infer(_items([65]), Lane.BULK)
        assert (await batcher.infer(_items([64]), Lane.BULK)).rows[0, 0] == 64 * 65 / 2
    finally:
        await batcher.close()
