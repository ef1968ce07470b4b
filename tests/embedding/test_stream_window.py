"""A bulk stream reads ahead by a number of texts, but by two batches at least."""

from __future__ import annotations

import asyncio
from typing import cast

from embedding.service import StreamWindow
from nearline import contract as c


async def _batch(number: int) -> c.Embeddings:
    return cast(c.Embeddings, number)


async def _can_enter(window: StreamWindow, texts: int, number: int) -> bool:
    """Returns whether a batch enters without waiting; if it has to wait, it gives up."""
    entering = asyncio.create_task(window.enter(texts, _batch(number)))
    for _ in range(5):
        await asyncio.sleep(0)
    if entering.done():
        return True
    entering.cancel()
    await asyncio.gather(entering, return_exceptions=True)
    return False


async def test_two_batches_enter_whatever_their_size_and_a_third_has_to_wait() -> None:
    window = StreamWindow(10)
    assert await _can_enter(window, 100, 1)
    assert await _can_enter(window, 100, 2)
    assert not await _can_enter(window, 1, 3)
    window.leave(100)
    assert await _can_enter(window, 1, 3)
    assert not await _can_enter(window, 1, 4)


async def test_small_batches_enter_until_their_texts_fill_the_window() -> None:
    window = StreamWindow(10)
    assert [await _can_enter(window, 3, number) for number in range(4)] == [True, True, True, False]
    assert await _can_enter(window, 1, 4)


async def test_a_batch_that_waits_enters_when_another_leaves() -> None:
    window = StreamWindow(10)
    for number in range(2):
        await window.enter(10, _batch(number))
    waiting = asyncio.create_task(window.enter(10, _batch(2)))
    await asyncio.sleep(0)
    assert not waiting.done()
    window.leave(10)
    await asyncio.wait_for(waiting, 10)


async def test_batches_are_returned_in_order_until_the_end() -> None:
    window = StreamWindow(10)
    for number in range(2):
        await window.enter(number + 1, _batch(number))
    window.end()
    returned: list[tuple[object, int]] = []
    while (work := await window.next()) is not None:
        returned.append((await work[0], work[1]))
    assert returned == [(0, 1), (1, 2)]


async def test_cancelling_ends_the_batches_in_progress() -> None:
    window = StreamWindow(10)
    never = asyncio.Event()
    cancelled = []

    async def endless() -> c.Embeddings:
        try:
            await never.wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return cast(c.Embeddings, None)

    for _ in range(2):
        await window.enter(1, endless())
    window.end()
    await asyncio.sleep(0)
    await window.cancel()
    assert cancelled == [True, True]
