"""Orders the chunks found again, by a cross-encoder that reads each beside the question."""

from __future__ import annotations

from collections.abc import Sequence

from nearline.contract import Hit, Reranker
from nearline.errors import NearlineError


async def rerank(
    reranker: Reranker, question: str, hits: Sequence[Hit], most: int, timeout_s: float | None
) -> tuple[list[Hit], str]:
    """Puts the best hits into the order of a reranker; never fails.

    Args:
        reranker: Scores texts.
        question: Not empty.
        hits: Chunks with their texts, best first.
        most: Hits to score, the first ones, >= 0; those without a text are not scored.
        timeout_s: Seconds the scores may take; None: the reranker's own limit.
    Returns: All hits: those scored, best first, equal ones as they were; then the rest as it was.
        And why the order is the given one; empty: it is the reranker's. A hit keeps its score:
        what is read from it (thresholds, signals) was set on the scores of the search.
    """
    rows = [row for row, hit in enumerate(hits[:most]) if (hit.text or "").strip()]
    if not rows:
        return list(hits), ""
    texts = [_text(hits[row]) for row in rows]
    try:
        scores = await reranker.rerank(question, texts, timeout_s=timeout_s)
    except NearlineError as error:
        return list(hits), f"chunks are in the order of the search: {error.message}"
    # Stable: equal scores keep the given order.
    best = sorted(range(len(rows)), key=lambda place: -scores[place])
    scored = set(rows)
    rest = [hit for row, hit in enumerate(hits) if row not in scored]
    return [*(hits[rows[place]] for place in best), *rest], ""


def _text(hit: Hit) -> str:
    """Returns what the reranker reads: title and text, as the index was embedded."""
    title, text = hit.title or "", hit.text or ""
    return text if text.startswith(title) else f"{title} {text}"
