"""Deletion by a filter while the snapshot that is served changes."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from nearline import contract as c
from nearline.errors import SnapshotGone
from nearline.filters import Equals
from retrieval.writes.filtered_deletion import delete_matching


class Swapping:
    """Serves another snapshot each time."""

    reads = 0

    async def list_items(self, **arguments: Any) -> c.ItemsPage:
        self.reads += 1
        assert self.reads < 100
        raise SnapshotGone("another one is served")


async def test_a_deletion_that_begins_again_pauses_first() -> None:
    retriever = Swapping()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.25):
            await delete_matching(cast(Any, retriever), cast(Any, None), Equals("shelf", 1))
    assert 1 < retriever.reads < 5
