"""Tests the reranking of chunks, and the order without a reranker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from generation.evidence.evidence_reader import rerank
from nearline.clients import EmbeddingClient
from nearline.contract import Hit, Lane
from nearline.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NearlineError,
    NotReady,
    Overloaded,
    Unsupported,
)


class CountingReranker:
    """Scores a text by the number in its last word; `error` is raised instead."""

    def __init__(self, error: NearlineError | None = None) -> None:
        self.error = error
        self.calls: list[tuple[str, list[str], Lane, float | None]] = []

    async def rerank(
        self,
        query: str,
        texts: Sequence[str],
        *,
        snapshot: str = "",
        lane: Lane = Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> Sequence[float]:
        self.calls.append((query, list(texts), lane, timeout_s))
        if self.error is not None:
            raise self.error
        return [float(text.split()[-1]) for text in texts]


def chunk(name: str, score: float, text: str | None) -> Hit:
    return Hit(id=name, score=score, title="T", text=text)


HITS = [
    chunk("a", 0.9, "1"),
    chunk("b", 0.8, "3"),
    chunk("c", 0.7, None),
    chunk("d", 0.6, "2"),
    chunk("e", 0.5, "9"),
]


def names(hits: Sequence[Hit]) -> str:
    return "".join(hit.id for hit in hits)


async def test_the_best_are_reordered_and_the_rest_is_unchanged() -> None:
    reranker = CountingReranker()
    hits, reason = await rerank(reranker, "which?", HITS, 4, 1.5)
    # "c" has no text; "e" is not among the best four.
    assert (names(hits), reason) == ("bdace", "")
    assert reranker.calls == [("which?", ["T 1", "T 3", "T 2"], Lane.INTERACTIVE, 1.5)]
    # The score of the search stays with its hit.
    assert {hit.id: hit.score for hit in hits} == {hit.id: hit.score for hit in HITS}


async def test_a_title_that_begins_the_text_is_sent_once() -> None:
    reranker = CountingReranker()
    await rerank(reranker, "q", [Hit(id="a", score=1, title="Lamp", text="Lamp manual 4")], 9, None)
    await rerank(reranker, "q", [Hit(id="a", score=1, text="5")], 9, None)
    assert [texts for _, texts, _, _ in reranker.calls] == [["Lamp manual 4"], ["5"]]


@given(
    scores=st.lists(st.integers(0, 3), max_size=8),
    most=st.integers(0, 10),
)
def test_reranking_is_a_stable_sort_of_the_head(scores: list[int], most: int) -> None:
    given_hits = [chunk(str(row), 0.0, str(score)) for row, score in enumerate(scores)]
    hits, reason = asyncio.run(rerank(CountingReranker(), "q", given_hits, most, None))
    head = sorted(given_hits[:most], key=lambda hit: -int(hit.text or ""))
    assert hits == head + given_hits[most:] and reason == ""


async def test_nothing_to_score_makes_no_request() -> None:
    reranker = CountingReranker(NotReady("away"))
    for hits, most in ((HITS, 0), ([], 5), ([chunk("c", 1.0, " ")], 5)):
        assert await rerank(reranker, "q", hits, most, None) == (hits, "")
    assert reranker.calls == []


@pytest.mark.parametrize(
    "error",
    [
        NotReady("the service is loading"),
        Overloaded("the queue is full", retry_after_s=1.0),
        DeadlineExceeded("it took too long"),
        Unsupported("no reranker is set"),
        InvalidRequest("texts[3] is too long", field="texts[3]"),
    ],
)
async def test_a_failed_reranker_keeps_the_order_and_gives_the_reason(error: NearlineError) -> None:
    hits, reason = await rerank(CountingReranker(error), "q", HITS, 4, 1.0)
    assert names(hits) == "abcde"
    assert error.message in reason and "order of the search" in reason


@pytest.mark.service
async def test_an_unavailable_service_keeps_the_order() -> None:
    # No service listens on port 1.
    async with EmbeddingClient("127.0.0.1:1") as client:
        hits, reason = await rerank(client, "q", HITS, 4, 5.0)
        odd, why = await rerank(client, "q\ud800", HITS, 4, 5.0)
    assert names(hits) == names(odd) == "abcde"
    assert "127.0.0.1:1 does not answer" in reason
    assert "lone surrogate" in why
