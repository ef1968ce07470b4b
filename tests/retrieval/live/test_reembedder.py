"""Changes that lack vectors of the snapshot's model."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nearline.errors import InvalidRequest, NotApplied, NotReady
from retrieval.changelog.records import ChangeEntry
from retrieval.embedders.endpoints import Embedders
from retrieval.live.reembedder import Reembedder
from tests.retrieval.fakes import FakeEmbedder
from tests.retrieval.live.followed_collection import DIM, OLD, Open, until_texts, upsert
from tests.retrieval.small_snapshots import FINGERPRINT


@pytest.mark.parametrize(
    ("pattern", "sizes"),
    [
        ("", []),
        ("+", [1]),
        ("-" * 31, [31]),
        ("-" * 32, [32]),
        ("-" * 33, [32, 1]),
        ("-" * 64, [32, 32]),
        ("+" * 100, [100]),
        ("+-" * 40 + "+", [64, 17]),
    ],
)
def test_batches_contain_all_changes_in_order_and_at_most_32_to_embed(
    pattern: str, sizes: list[int]
) -> None:
    models = {"+": FINGERPRINT, "-": "another"}
    entries = [
        ChangeEntry(0, position, 0, upsert(f"n{position}", fingerprint=models[one]))
        for position, one in enumerate(pattern, 1)
    ]
    reembedder = Reembedder(collection="default", fingerprint=FINGERPRINT, dim=DIM)
    batches = list(reembedder.batches(entries))
    assert [len(one) for one in batches] == sizes
    assert [entry for batch in batches for entry in batch] == entries


async def test_changes_for_another_model_are_embedded_before_they_are_applied(opened: Open) -> None:
    embedder = FakeEmbedder(DIM)
    embedder.error = NotReady("the embedding service is away")
    one = opened(embedders=Embedders({"here": embedder}))
    await one.load()
    least = await one.write(upsert("d0", "3", fingerprint="another"))
    await one.write(upsert("d1", "later"))
    soon = asyncio.get_running_loop().time() + 0.3
    with pytest.raises(NotApplied):
        await one.texts(least, soon)
    assert sum(each.behind for each in one.progress().values()) == 2
    embedder.error = None
    assert (await one.texts(least))["d0"] == "3"
    await until_texts(one, {**OLD, "d0": "3", "d1": "later"})
    vectors = await one.vectors("d0", "d1")
    assert [vector.argmax() for vector in vectors] == [3, 0]


async def test_without_an_embedder_such_changes_block_and_report_the_reason(opened: Open) -> None:
    one = opened(allow_stale=True)
    await one.write(upsert("d0", "3", fingerprint="another"))
    await one.load()
    assert "start it with --embedding HOST:PORT" in await one.stale()
    assert await one.texts() == OLD


async def test_chunks_that_the_model_rejects_are_dropped(opened: Open) -> None:
    class Refusing(FakeEmbedder):
        async def embed(self, texts: Any, *words: Any, **more: Any) -> Any:
            if "bad" in texts:
                raise InvalidRequest("bad is no text")
            return await super().embed(texts, *words, **more)

    one = opened(embedders=Embedders({"here": Refusing(DIM)}))
    await one.load()
    least = await one.write(
        upsert("d0", "bad", fingerprint="another"), upsert("d1", "2", fingerprint="another")
    )
    wanted = {**OLD, "d1": "2"}
    del wanted["d0"]
    assert await one.texts(least) == wanted
