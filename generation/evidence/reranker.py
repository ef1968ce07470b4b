"""Reranks chunks with a cross-encoder, which reads each chunk together with the question."""

from __future__ import annotations

from collections.abc import Sequence

from nearline.contract import Hit, Reranker
from nearline.errors import NearlineError


async def rerank(
    reranker: Reranker, question: str, hits: Sequence[Hit], most: int, timeout_s: float | None
) -> tuple[list[Hit], str]:
    """Reorders the best hits by the scores of a reranker; never fails.

    Args:
        reranker: Scores texts.
        question: Text of the question; not empty.
        hits: Chunks with their texts, best first.
        most: Maximum number of first hits to score, >= 0; hits without text are not scored.
        timeout_s: Timeout for scoring; if None, the reranker's own limit applies.
    Returns: All hits: the scored ones, best first and ties in the old order, then the others
        unchanged; and the reason if the hits were not reranked, otherwise an empty text. Hits keep
        their scores, because thresholds and signals are based on the scores of the search.
    """
    rows = [row for row, hit in enumerate(hits[:most]) if (hit.text or "").strip()]
    if not rows:
        return list(hits), ""
    texts = [_text(hits[row]) for row in rows]
    try:
        scores = await reranker.rerank(question, texts, timeout_s=timeout_s)
    except NearlineError as error:
        return list(hits), f"chunks are in the order of the search: {error.message}"
    # The sort is stable: equal scores keep the old order.
    best = sorted(range(len(rows)), key=lambda place: -scores[place])
    scored = set(rows)
    rest = [hit for row, hit in enumerate(hits) if row not in scored]
    return [*(hits[rows[place]] for place in best), *rest], ""


def _text(hit: Hit) -> str:
    """Returns the text for the reranker: title and text, in the form that the index embeds."""
    title, text = hit.title or "", hit.text or ""
    return text if text.startswith(title) else f"{title} {text}"
