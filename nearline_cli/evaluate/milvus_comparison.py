"""Compares FAISS and Milvus on the same queries: `nearline eval retrieval --backend milvus`."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Sequence
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING

from nearline.clients import RetrievalClient
from nearline.contract import Query, SearchMode, SearchOptions
from nearline.filters import All, Equals, Filter, In, Not, Range
from nearline_cli.compose.build_context import open_embedder
from nearline_cli.compose.milvus_target import MilvusIndex, MilvusTarget, export_temporarily
from nearline_cli.evaluate.beir_build import BuildPlan, build_dataset
from nearline_cli.evaluate.retrieval_quality import score_router
from nearline_cli.local.processes import retrieval_process
from nearline_cli.terminal.options import DEFAULT_COLLECTION

if TYPE_CHECKING:
    from index_builder.evaluation.retrieval_metrics import JudgedDataset

# An attribute to filter by, added to each document: its row modulo a hundred.
_PART = "eval_part"
_PARTS = 100
_FILTERS: Sequence[Filter] = (
    Equals(_PART, 7),
    In(_PART, tuple(range(0, _PARTS, 10))),
    Range(_PART, gte=50),
    Not(Range(_PART, gte=90)),
    All(Range(_PART, lt=30), Not(Equals(_PART, 11))),
)
# Queries per filter.
_QUERIES_PER_FILTER = 100
_QUERIES_PER_CALL = 25
_K = 10
_TIMEOUT_S = 120.0


async def compare_with_milvus(
    data: JudgedDataset, mode: SearchMode, plan: BuildPlan, target: MilvusTarget, as_json: bool
) -> dict[str, object]:
    """Builds one snapshot, serves it from FAISS and from Milvus, and scores both.

    Returns: The figures of Milvus, those of FAISS, and the overlap of filtered hits: the mean share
    of the ids of FAISS that Milvus returns, too. With the index FLAT in Milvus, the search is
    exact.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-eval-") as folder:
        async with contextlib.AsyncExitStack() as stack:
            corpus = Path(folder) / "corpus.jsonl"
            _write_parts(data.corpus, corpus)
            client = await stack.enter_async_context(open_embedder(plan.embedding, quiet=as_json))
            store = Path(folder) / "store"
            built = await build_dataset(str(store), corpus, plan, client, as_json)
            faiss = await stack.enter_async_context(
                retrieval_process(store, embedding=client.address)
            )
            written = await stack.enter_async_context(
                export_temporarily(store, DEFAULT_COLLECTION, target)
            )
            milvus = await stack.enter_async_context(
                retrieval_process(
                    store, target.router, embedding=client.address, environ=target.environ
                )
            )
            by_faiss = await score_router(faiss.address, DEFAULT_COLLECTION, data, mode)
            by_milvus = await score_router(milvus.address, DEFAULT_COLLECTION, data, mode)
            shared = await _shared(
                faiss.address, milvus.address, data, mode, exact=target.kind is MilvusIndex.FLAT
            )
    name = "ndcg@10"
    ndcg, faiss_ndcg = by_milvus[name], by_faiss[name]
    assert isinstance(ndcg, float) and isinstance(faiss_ndcg, float)
    return {
        "backend": "milvus",
        "milvus": written.version,
        **by_milvus,
        "index": target.kind,
        f"faiss_{name}": faiss_ndcg,
        f"{name}_difference": round(ndcg - faiss_ndcg, 4),
        "filtered_shared@10": shared,
        "filters": len(_FILTERS),
        "bad_rows": built.bad_rows,
    }


async def _shared(
    faiss: str, milvus: str, data: JudgedDataset, mode: SearchMode, *, exact: bool
) -> float:
    queries = [Query(text=text) for text in islice(data.queries.values(), _QUERIES_PER_FILTER)]
    shares: list[float] = []
    async with RetrievalClient(faiss) as reference, RetrievalClient(milvus) as tested:
        for filter, first in product(_FILTERS, range(0, len(queries), _QUERIES_PER_CALL)):
            options = SearchOptions(
                k=_K,
                mode=mode,
                payload=frozenset(),
                filter=filter,
                # A graph index has no exact search.
                exact=exact and mode is SearchMode.DENSE,
                require_full_coverage=True,
            )
            batch = queries[first : first + _QUERIES_PER_CALL]
            expected = await reference.search_batch(batch, options, timeout_s=_TIMEOUT_S)
            actual = await tested.search_batch(batch, options, timeout_s=_TIMEOUT_S)
            for right, found in zip(expected.results, actual.results, strict=True):
                ids = {hit.id for hit in right.hits}
                if ids:
                    shares.append(len(ids & {hit.id for hit in found.hits}) / len(ids))
    return round(sum(shares) / len(shares), 4)


def _write_parts(corpus: Path, target: Path) -> None:
    with corpus.open("rb") as lines, target.open("w", encoding="utf-8") as out:
        for row, line in enumerate(filter(bytes.strip, lines)):
            document = json.loads(line)
            document[_PART] = row % _PARTS
            out.write(json.dumps(document) + "\n")
