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
    address: str, collection: str, data: JudgedDataset, mode: SearchMode
) -> dict[str, object]:
    """Sends every query to a router, and scores the rankings."""
    from index_builder.evaluation import retrieval_metrics

    wanted = SearchOptions(
        k=_K, mode=mode, payload=frozenset(), require_full_coverage=True, plain_text=True
    )
    ids = list(data.queries)
    rankings: dict[str, list[str]] = {}
    async with RetrievalClient(address) as client, AdminClient(address) as admin:
        manifest = await admin.snapshot(collection)
        for first in range(0, len(ids), _QUERIES_PER_CALL):
            batch = ids[first : first + _QUERIES_PER_CALL]
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
