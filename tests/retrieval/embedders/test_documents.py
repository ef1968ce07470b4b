"""The time that batches of documents have."""

from __future__ import annotations

import pytest

from nearline.contract import Lane, TextRole
from retrieval.embedders.documents import embed_documents
from tests.retrieval.fakes import FakeEmbedder


@pytest.mark.parametrize("lane", list(Lane))
async def test_batches_end_with_the_call_or_after_two_minutes_if_it_has_no_limit(
    lane: Lane,
) -> None:
    embedder = FakeEmbedder(8)
    info = await embedder.info()
    texts = [str(number) for number in range(8)]
    await embed_documents(embedder, info, texts, lane, None)
    assert {(role, timeout_s) for _, role, timeout_s in embedder.calls} == {
        (TextRole.DOCUMENT, 120.0)
    }
    embedder.calls.clear()
    await embed_documents(embedder, info, texts, lane, 1_000.0)
    given = [timeout_s for _, _, timeout_s in embedder.calls]
    assert len(given) == 2
    assert all(timeout_s is not None and 900.0 < timeout_s <= 1_000.0 for timeout_s in given)
