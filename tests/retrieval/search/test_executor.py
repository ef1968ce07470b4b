"""Searches of several queries over shards that know every answer."""

from __future__ import annotations

import numpy as np
import pytest

from nearline import contract as c
from tests.retrieval.writable_collection import DIM, written


@pytest.mark.parametrize("k", [1, 2, 4_096, 4_097, c.MAX_K])
async def test_every_query_of_a_batch_gets_its_hits_however_many_are_requested(k: int) -> None:
    collection = written(own_vectors=True)
    collection.put(c.Item(id="a"), c.Item(id="b"), c.Item(id="c"))
    queries = [c.Query(vector=np.eye(DIM, dtype=np.float32)[number]) for number in range(3)]
    reply = await collection.service.search_batch(queries, c.SearchOptions(k=k))
    expected = ["a", "b", "c"][:k]
    assert [[hit.id for hit in result.hits] for result in reply.results] == [expected] * 3
