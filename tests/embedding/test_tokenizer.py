"""Text to token ids, by several threads."""

from __future__ import annotations

import asyncio
from pathlib import Path

from embedding.tokenizer import TokenizerThreads, most_threads
from tests.embedding.fakes import write_model


async def test_requests_share_threads_and_each_gets_its_own_tokens(tmp_path: Path) -> None:
    threads = TokenizerThreads(write_model(tmp_path / "m"), 8, "bulk", threads=3)
    requests = [[f"w{request} w{text}" for text in range(20)] for request in range(20)]
    replies = await asyncio.gather(*map(threads.tokenize, requests))
    threads.close()
    for request, reply in enumerate(replies):
        assert [text.ids.tolist() for text in reply] == [
            [2, request + 4, text + 4, 3] for text in range(20)
        ]


def test_a_gpu_gets_half_of_the_cores_at_most_eight() -> None:
    assert 1 <= most_threads() <= 8
