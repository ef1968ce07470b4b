"""A reply says that the CPU stood in for a GPU of the embedder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nearline import contract as c
from tests.retrieval.conftest import OpenService
from tests.retrieval.fakes import FakeEmbedder
from tests.retrieval.small_snapshots import documents_of, write_snapshot


async def test_a_reply_says_that_the_cpu_stood_in_for_the_gpu_of_the_embedder(
    tmp_path: Path, open_service: OpenService
) -> None:
    write_snapshot(tmp_path, documents_of(np.ones((3, 4), np.float32)))
    embedder = FakeEmbedder(4)
    async with open_service(tmp_path, somewhere=embedder) as service:
        embedder.served_by = c.ServedBy(
            source=c.Source.FALLBACK, rung=c.CPU_RUNG, reason="cuda:0: it hangs"
        )
        reply = await service.search(c.Query(text="2"))
        assert reply.info.served_by == c.ServedBy(
            source=c.Source.FALLBACK, rung=c.CPU_RUNG, reason="embedder: cuda:0: it hangs"
        )
        embedder.served_by = c.ServedBy()
        assert (await service.search(c.Query(text="2"))).info.served_by == c.ServedBy()
