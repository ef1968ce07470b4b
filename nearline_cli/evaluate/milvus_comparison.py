"""`nearline eval retrieval --backend milvus`: the same questions to FAISS and to a Milvus."""

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

# Added to each document, so that there is something to filter by: its row, in parts of a hundred.
_PART = "eval_part"
_PARTS = 100
_FILTERS: Sequence[Filter] = (
    Equals(_PART, 7),
    In(_PART, tuple(range(0, _PARTS, 10))),
    Range(_PART, gte=50),
    Not(Range(_PART, gte=90)),
    All(Range(_PART, lt=30), Not(Equals(_PART, 11))),
)
# Queries that each of them is asked with.
_FILTERED = 100
_QUERIES_PER_CALL = 25
_K = 10
_TIMEOUT_S = 120.0


async def compare_with_milvus(
    found: JudgedDataset, mode: SearchMode, plan: BuildPlan, target: MilvusTarget, as_json: bool
) -> dict[str, object]:
    """Builds one snapshot, serves it by FAISS and by Milvus, and scores both.

    Returns: The figures of Milvus, those of FAISS beside them, and how much of the filtered hits
        is the same: the mean share of the ids of FAISS among those of Milvus, exact where the
        index of Milvus is FLAT.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-eval-") as folder:
        async with contextlib.AsyncExitStack() as stack:
            corpus = Path(folder) / "corpus.jsonl"
            _write_parts(found.corpus, corpus)
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
                retrieval_process(store, target.router, embedding=client.address)
            )
            by_faiss = await score_router(faiss.address, DEFAULT_COLLECTION, found, mode)
            by_milvus = await score_router(milvus.address, DEFAULT_COLLECTION, found, mode)
            shared = await _shared(
                faiss.address, milvus.address, found, mode, exact=target.kind is MilvusIndex.FLAT
            )
    name = "ndcg@10"
    mine, other = by_milvus[name], by_faiss[name]
    assert isinstance(mine, float) and isinstance(other, float)
    return {
        "backend": "milvus",
        "milvus": written.version,
        **by_milvus,
        "index": target.kind,
        f"faiss_{name}": other,
        f"{name}_difference": round(mine - other, 4),
        "filtered_shared@10": shared,
        "filters": len(_FILTERS),
        "bad_rows": built.bad_rows,
    }


async def _shared(
    faiss: str, milvus: str, found: JudgedDataset, mode: SearchMode, *, exact: bool
) -> float:
    queries = [Query(text=text) for text in islice(found.queries.values(), _FILTERED)]
    shares: list[float] = []
    async with RetrievalClient(faiss) as one, RetrievalClient(milvus) as other:
        for filter, first in product(_FILTERS, range(0, len(queries), _QUERIES_PER_CALL)):
            options = SearchOptions(
                k=_K,
                mode=mode,
                filter=filter,
                # A graph has no exact search.
                exact=exact and mode is SearchMode.DENSE,
                require_full_coverage=True,
            )
            asked = queries[first : first + _QUERIES_PER_CALL]
            wanted = await one.search_batch(asked, options, timeout_s=_TIMEOUT_S)
            given = await other.search_batch(asked, options, timeout_s=_TIMEOUT_S)
            for right, hits in zip(wanted.results, given.results, strict=True):
                ids = {hit.id for hit in right.hits}
                if ids:
                    shares.append(len(ids & {hit.id for hit in hits.hits}) / len(ids))
    return round(sum(shares) / len(shares), 4)


def _write_parts(corpus: Path, target: Path) -> None:
    with corpus.open("rb") as lines, target.open("w", encoding="utf-8") as out:
        for row, line in enumerate(filter(bytes.strip, lines)):
            document = json.loads(line)
            document[_PART] = row % _PARTS
            out.write(json.dumps(document) + "\n")
