"""Scores the rankings of a running router against judgements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearline.clients import AdminClient, RetrievalClient
from nearline.contract import Query, SearchMode, SearchOptions

if TYPE_CHECKING:
    from index_builder.evaluation.retrieval_metrics import JudgedDataset

_K = 100
_QUERIES_PER_CALL = 32
_TIMEOUT_S = 120.0


async def score_router(
    address: str,
    collection: str,
    data: JudgedDataset,
    mode: SearchMode,
    rerank: int | None = None,
) -> dict[str, object]:
    """Sends every query to a router, and scores the rankings.

    rerank: See `SearchOptions`.
    """
    from index_builder.evaluation import retrieval_metrics

    wanted = SearchOptions(
        k=_K,
        mode=mode,
        payload=frozenset(),
        require_full_coverage=True,
        plain_text=True,
        rerank=rerank,
    )
    ids = list(data.queries)
    rankings: dict[str, list[str]] = {}
    async with RetrievalClient(address) as client, AdminClient(address) as admin:
        manifest = await admin.snapshot(collection)
        # Hits of a batch are not reranked unless it asks for it, since that takes long.
        at_once = 1 if manifest.HasField("reranker") else _QUERIES_PER_CALL
        for first in range(0, len(ids), at_once):
            batch = ids[first : first + at_once]
            reply = await client.search_batch(
                [Query(text=data.queries[query]) for query in batch],
                wanted,
                collection=collection,
                timeout_s=_TIMEOUT_S,
            )
            for query, result in zip(batch, reply.results, strict=True):
                rankings[query] = [hit.id for hit in result.hits]
    scores = retrieval_metrics.score(rankings, data.judgements)
    weight: dict[str, object] = {}
    if mode is SearchMode.HYBRID:
        weight["dense_weight"] = manifest.fusion.dense_weight
        weight["weight_origin"] = manifest.fusion.origin
    if manifest.HasField("reranker"):
        weight["reranked"] = manifest.reranker.candidates if rerank is None else rerank
    return {
        "queries": len(ids),
        **{name: round(value, 4) for name, value in scores.items()},
        "shards": len(manifest.shards),
        "documents": manifest.documents,
        "chunks": manifest.chunks,
        "chunk_tokens": manifest.chunking.max_tokens,
        "index": manifest.index_factory,
        "model": manifest.embedder.model,
        **weight,
    }
