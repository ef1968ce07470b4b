"""Which rerankers of snapshots stay loaded."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from embedding.judges import snapshot_rerankers
from embedding.judges.snapshot_rerankers import SnapshotRerankers
from embedding.settings import EmbeddingSettings
from tests.embedding.fakes import word_model


class Loaded:
    """A reranker and its batcher."""

    def __init__(self, snapshot: str) -> None:
        self.batcher = self
        self.closed = False

    def start(self) -> None:
        pass

    async def close(self) -> None:
        self.closed = True


async def test_the_reranker_that_was_not_used_for_longest_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_rerankers, "MOST_LOADED", 2)
    monkeypatch.setattr(SnapshotRerankers, "_load", lambda self, snapshot: Loaded(snapshot))
    rerankers = SnapshotRerankers(word_model(tmp_path / "m"), EmbeddingSettings())
    first = await rerankers.of("shop/a")
    second = await rerankers.of("shop/b")
    assert await rerankers.of("shop/a") is first
    third = await rerankers.of("shop/c")
    loaded = [cast(Loaded, one) for one in (first, second, third)]
    assert [one.closed for one in loaded] == [False, True, False]
    assert await rerankers.of("shop/a") is first
