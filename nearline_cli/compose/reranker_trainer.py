"""Trains the reranker of a snapshot on judged queries, before the snapshot is published."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.clients import EmbeddingClient, RetrievalClient
from nearline.contract import PayloadField, Query, SearchMode, SearchOptions
from nearline.errors import InvalidRequest, SettingsError
from nearline.store.snapshot import RERANKER_FILE
from nearline.v1 import snapshot_pb2
from nearline_cli.compose.calibration import draft_retriever

if TYPE_CHECKING:
    from index_builder.evaluation.retrieval_metrics import JudgedDataset
    from index_builder.options.build_options import TrainReranker

# Fewest judged queries; fewer teach nothing that holds for others.
MIN_QUERIES = 100
# Hits of each query to learn from; and those that a search has read by default, which takes a tenth
# of a second on two cores. A request may ask for more, or for less.
_HITS, CANDIDATES = 32, 10
# Every so many queries, one is held out to choose the weight.
_HELD_OUT = 8
_WEIGHTS = (0.25, 0.5, 1.0, 2.0)
_K = 10
_SEARCH = SearchOptions(
    k=_HITS,
    mode=SearchMode.HYBRID,
    payload=frozenset({PayloadField.TITLE, PayloadField.TEXT}),
    plain_text=True,
)
_QUERIES_PER_CALL = 16
_TIMEOUT_S = 120.0


class RankedQuery(NamedTuple):
    """A judged query with the best hits of the search.

    text: The query. ids, texts: Of its hits, best first; a text has the title on its first line.
    scores: (n,) of the search. grades: Judgements by document id.
    """

    text: str
    ids: Sequence[str]
    texts: Sequence[str]
    scores: NDArray[np.float64]
    grades: Mapping[str, int]


def check_queries(judged: JudgedDataset | None) -> None:
    """Checks before hours of embedding that a reranker can be trained.

    Raises: InvalidRequest: there are no judged queries, or too few. SettingsError: torch is not
        installed.
    """
    if judged is None:
        raise InvalidRequest(
            "--train-reranker learns from judged queries; name them with --tune-on DIR",
            field="train_reranker",
        )
    if len(judged.queries) < MIN_QUERIES:
        raise InvalidRequest(
            f"{len(judged.queries)} queries are judged, {MIN_QUERIES} are needed to train a "
            "reranker; judge more, or leave out --train-reranker",
            field="train_reranker",
        )
    try:
        import embedding.judges.low_rank_trainer  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"--train-reranker needs torch and transformers ({error}); run pip install "
            "'nearline-server[torch]'"
        ) from error


def make_reranker_trainer(
    judged: JudgedDataset, embedder: EmbeddingClient, minutes: float
) -> TrainReranker:
    """Returns the step of a build that trains the reranker; it searches the files of the build.

    Args:
        judged: Judged queries, accepted by `check_queries`.
        embedder: The embedding service that the build uses.
        minutes: Most minutes of training.
    """

    async def train(
        folder: Path, manifest: snapshot_pb2.Manifest, advance: Callable[[int], None]
    ) -> snapshot_pb2.RerankerCard:
        async with draft_retriever(folder, manifest, embedder) as retriever:
            found = await _search(judged, retriever)
        out = folder / RERANKER_FILE
        return await asyncio.to_thread(train_reranker, found, out, 60 * minutes, advance)

    return train


async def _search(judged: JudgedDataset, retriever: RetrievalClient) -> list[RankedQuery]:
    """Returns the queries that have a relevant hit and another one, with their hits."""
    ids, found = list(judged.queries), []
    for first in range(0, len(ids), _QUERIES_PER_CALL):
        batch = ids[first : first + _QUERIES_PER_CALL]
        reply = await retriever.search_batch(
            [Query(text=judged.queries[one]) for one in batch], _SEARCH, timeout_s=_TIMEOUT_S
        )
        for query, result in zip(batch, reply.results, strict=True):
            found.append(
                RankedQuery(
                    judged.queries[query],
                    [hit.id for hit in result.hits],
                    [f"{hit.title or ''}\n{hit.text or ''}" for hit in result.hits],
                    np.array([hit.score for hit in result.hits]),
                    judged.judgements[query],
                )
            )
    return found


def train_reranker(
    queries: Sequence[RankedQuery],
    out: Path,
    max_s: float,
    advance: Callable[[int], None] = lambda percent: None,
) -> snapshot_pb2.RerankerCard:
    """Trains a reranker, starting from the judge of answers, and writes it.

    Every eighth query is held out; of the weights beside the search, the one with the best mean
    nDCG@10 of these is chosen.

    Args:
        queries: Judged queries with their hits.
        out: The file to write.
        max_s: Seconds after which training ends.
        advance: Called with the percents done since the last call.
    Returns: Its card; the weight is 0, and no file is written, if none improves the held-out
        queries.
    Raises: InvalidRequest: too few queries have a relevant document among their hits.
    """
    from embedding.bert_weights import read_tensors
    from embedding.judges import low_rank_trainer as training
    from embedding.judges.answer_judge import ADAPTER_FILE
    from embedding.judges.low_rank_model import save_change
    from embedding.model import DEFAULT_MODEL, find_model

    held = [one for one in queries[::_HELD_OUT] if len(one.ids) > 1]
    rest = [one for at, one in enumerate(queries) if at % _HELD_OUT]
    groups = [group for one in rest if (group := _group(one)) is not None]
    if len(groups) < MIN_QUERIES // 2:
        raise InvalidRequest(
            f"only {len(groups)} of {len(queries)} judged queries have a relevant document among "
            f"the best {_HITS} hits; judge documents of this collection, or leave out "
            "--train-reranker",
            field="train_reranker",
        )
    folder = find_model(DEFAULT_MODEL, cache_folder=Path(tempfile.gettempdir())).folder
    model = training.RankingModel(folder)
    model.start(read_tensors([ADAPTER_FILE]))
    done = 0

    def show(share: float, loss: float) -> None:
        nonlocal done
        advance(int(100 * share) - done)
        done = int(100 * share)

    training.train_ranking(model, groups, max_s=max_s, progress=show)
    scores = [model.score(one.text, one.texts) for one in held]
    by_weight = {weight: _mean_ndcg(held, scores, weight) for weight in (0.0, *_WEIGHTS)}
    weight = max(by_weight, key=lambda one: by_weight[one])
    fingerprint = ""
    if weight:
        save_change(model.change(), out, f"{len(groups)} judged queries")
        fingerprint = hashlib.sha256(out.read_bytes()).hexdigest()
    return snapshot_pb2.RerankerCard(
        fingerprint=fingerprint,
        weight=weight,
        candidates=CANDIDATES,
        queries=len(groups),
        held_out_queries=len(held),
        search_ndcg_at_10=by_weight[0.0],
        reranked_ndcg_at_10=by_weight[weight],
    )


def _group(query: RankedQuery) -> tuple[str, Sequence[str], Sequence[bool]] | None:
    """Returns a query, texts and whether each is relevant; None if nothing can be learned."""
    relevant = [query.grades.get(one, 0) > 0 for one in query.ids]
    if not any(relevant) or all(relevant):
        return None
    return query.text, query.texts, relevant


def _mean_ndcg(
    queries: Sequence[RankedQuery], scores: Sequence[NDArray[np.float32]], weight: float
) -> float:
    from index_builder.evaluation.retrieval_metrics import ndcg
    from retrieval.search.second_stage import combined

    values = []
    for query, read in zip(queries, scores, strict=True):
        both = combined(query.scores[:CANDIDATES], read[:CANDIDATES], weight)
        order = np.argsort(-both, kind="stable").tolist()
        values.append(ndcg([query.ids[at] for at in order], query.grades, _K))
    return float(np.mean(values))
