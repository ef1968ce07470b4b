"""Batches of documents: their sizes, the time they have, and texts that are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from nearline.contract import Lane, TextRole
from nearline.errors import InvalidRequest, NotReady
from retrieval.embedders.documents import embed_documents
from tests.retrieval.fakes import FakeEmbedder

DIGITS = [str(number) for number in range(8)]


@pytest.mark.parametrize("lane", list(Lane))
async def test_batches_end_with_the_call_or_after_two_minutes_if_it_has_no_limit(
    lane: Lane,
) -> None:
    embedder = FakeEmbedder(8)
    info = await embedder.info()
    await embed_documents(embedder, info, DIGITS, lane, None)
    assert {(role, timeout_s) for _, role, timeout_s in embedder.calls} == {
        (TextRole.DOCUMENT, 120.0)
    }
    embedder.calls.clear()
    await embed_documents(embedder, info, DIGITS, lane, 1_000.0)
    given = [timeout_s for _, _, timeout_s in embedder.calls]
    assert len(given) == 2
    assert all(timeout_s is not None and 900.0 < timeout_s <= 1_000.0 for timeout_s in given)


@pytest.mark.parametrize(
    ("texts", "batches"),
    [
        (DIGITS[:4], [4]),
        (DIGITS[:5], [4, 1]),
        # A batch has 4 * 16 / 8 = 8 characters, or one text.
        (["0" * 4, "0" * 4, "0"], [2, 1]),
        (["0" * 9, "0", "0" * 7, "0"], [1, 2, 1]),
        # Texts are cut at 10 characters.
        (["0" * 10 + "x"], [1]),
        ([], []),
    ],
)
async def test_batches_fit_the_limits_of_the_embedder(texts: list[str], batches: list[int]) -> None:
    embedder = FakeEmbedder(8)
    info = replace(await embedder.info(), max_queued_tokens=16, max_characters=10)
    found = await embed_documents(embedder, info, texts, Lane.INTERACTIVE, None)
    assert [len(batch) for batch, _, _ in embedder.calls] == batches
    assert [text for batch, _, _ in embedder.calls for text in batch] == [
        text[:10] for text in texts
    ]
    wanted = np.eye(8)[[int(text[:10]) for text in texts]].reshape(-1, 8)
    np.testing.assert_array_equal(found.vectors, wanted)
    assert found.refused == {}


class Choosy(FakeEmbedder):
    """Refuses batches with a text that is not a number."""

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if bad := [text for text in texts if not text.isdecimal()]:
            raise InvalidRequest(f"{bad[0]} is not a number")
        return super().vectors(texts)


@pytest.mark.parametrize("bad", [[0], [3], [4], [1, 2], [0, 7], list(range(8)), []])
async def test_only_the_offending_texts_are_refused_each_at_its_place(bad: list[int]) -> None:
    embedder = Choosy(8)
    texts = [f"t{place}" if place in bad else str(place) for place in range(8)]
    found = await embed_documents(embedder, await embedder.info(), texts, Lane.INTERACTIVE, None)
    assert {place: error.message for place, error in found.refused.items()} == {
        place: f"t{place} is not a number" for place in bad
    }
    wanted = np.eye(8)
    wanted[bad] = 0.0
    np.testing.assert_array_equal(found.vectors, wanted)


async def test_an_embedder_that_is_unavailable_fails_the_call() -> None:
    embedder = FakeEmbedder(8)
    info = await embedder.info()
    embedder.error = NotReady("the embedder is away")
    with pytest.raises(NotReady, match="the embedder is away"):
        await embed_documents(embedder, info, DIGITS, Lane.INTERACTIVE, None)
