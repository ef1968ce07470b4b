"""Tests that a question is embedded once, and short sentences apart from long ones."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from generation.evidence.evidence_reader import EvidenceReader
from generation.evidence.sentence_features import FEATURES
from nearline.contract import (
    DEFAULT_COLLECTION,
    Embeddings,
    HitList,
    Lane,
    Question,
    SearchReply,
    ServedBy,
    TextRole,
)
from nearline.errors import NotReady
from tests.retrieval.fakes import WordEmbedder
from tests.retrieval.service_modes import OBJECT, opened

ASKED = Question(text="how do I descale the kettle with vinegar")


async def test_the_question_is_embedded_once(store: Path, embedder: WordEmbedder) -> None:
    counting = WordEmbedder(embedder.dim)
    async with opened(OBJECT, store, embedder) as retriever:
        reader = EvidenceReader(retriever, counting)
        found = await reader.find(ASKED, DEFAULT_COLLECTION, None)
        reading = await reader.read(found, None)
        asked = [texts for texts, role, _ in counting.calls if role is TextRole.QUERY]
        assert asked == [[ASKED.text]]
        assert reading.degraded == ""
        # Short sentences are embedded apart from long ones.
        short, long = (texts for texts, role, _ in counting.calls if role is TextRole.DOCUMENT)
        assert max(map(len, short)) <= min(map(len, long))
        # If the vector is unknown, or of another model, the question is embedded again.
        assert found.question_vectors is not None
        for vectors in (None, replace(found.question_vectors, fingerprint="another")):
            again = await reader.read(replace(found, question_vectors=vectors), None)
            assert np.array_equal(again.features, reading.features, equal_nan=True)
            assert again.signals == reading.signals
        asked = [texts for texts, role, _ in counting.calls if role is TextRole.QUERY]
        assert asked == [[ASKED.text]] * 3


async def test_a_misspelt_question_is_read_as_it_was_meant(
    store: Path, embedder: WordEmbedder
) -> None:
    wrong = replace(ASKED, text=ASKED.text.replace("vinegar", "vinegra"))
    async with opened(OBJECT, store, embedder) as retriever:
        reader = EvidenceReader(retriever, None)
        found = await reader.find(wrong, DEFAULT_COLLECTION, None)
        assert (found.question, found.misspelt) == (ASKED.text, {"vinegra": "vinegar"})
        reading = await reader.read(found, None)
        # The same hits, with the terms of the right words.
        asked = await reader.find(ASKED, DEFAULT_COLLECTION, None)
        terms = asked.reply.results[0].terms
        reply = replace(found.reply, results=[replace(found.reply.results[0], terms=terms)])
        meant = await reader.read(replace(found, reply=reply, misspelt={}), None)
    assert np.array_equal(reading.features, meant.features, equal_nan=True)
    assert reading.signals == pytest.approx(meant.signals, nan_ok=True)


async def test_each_sentence_has_the_cosine_of_its_own_text(
    store: Path, embedder: WordEmbedder
) -> None:
    async with opened(OBJECT, store, embedder) as retriever:
        reader = EvidenceReader(retriever, embedder)
        found = await reader.find(ASKED, DEFAULT_COLLECTION, None)
        reading = await reader.read(found, None, embedded=3)
        every = await reader.read(found, None, embedded=99)
    texts = [passage.text for source in found.sources for passage in source.passages]
    vectors = (await embedder.embed([ASKED.text, *texts])).vectors
    column = FEATURES.index("cosine")
    np.testing.assert_allclose(every.features[:, column], vectors[1:] @ vectors[0], atol=1e-6)
    # The others count as the lowest of the three.
    known = reading.features[:, column]
    true = every.features[:, column]
    same = np.isclose(known, true)
    assert same.sum() >= 3 and len(true) > 3
    assert (known[~same] == known[same].min()).all()


class _Stuck(WordEmbedder):
    """Never answers. ended: Set once its caller has given up."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.asked, self.ended = asyncio.Event(), asyncio.Event()

    async def embed(
        self,
        texts: Sequence[str],
        role: TextRole = TextRole.DOCUMENT,
        *,
        dimensions: int | None = None,
        expected_fingerprint: str = "",
        lane: Lane = Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> Embeddings:
        self.asked.set()
        try:
            unanswered: asyncio.Future[Embeddings] = asyncio.get_running_loop().create_future()
            return await unanswered
        finally:
            self.ended.set()


@pytest.mark.parametrize("fails", [False, True])
async def test_an_embedding_that_is_slower_than_the_search_is_given_up(fails: bool) -> None:
    stuck = _Stuck(4)

    async def search(*_: object, **__: object) -> SearchReply:
        await stuck.asked.wait()
        if fails:
            raise NotReady("no shard answered")
        info = SimpleNamespace(served_by=ServedBy())
        return SearchReply(results=[HitList(hits=[])], info=cast(Any, info))

    reader = EvidenceReader(cast(Any, SimpleNamespace(search=search)), stuck)
    with pytest.raises(NotReady) if fails else nullcontext():
        found = await reader.find(ASKED, DEFAULT_COLLECTION, None)
        assert found.question_vectors is None
    async with asyncio.timeout(1):
        await stuck.ended.wait()
