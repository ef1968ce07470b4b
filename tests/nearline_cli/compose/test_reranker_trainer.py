"""The reranker of a snapshot: what it learns, and when it is left out."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from index_builder.evaluation.retrieval_metrics import JudgedDataset
from nearline.errors import InvalidRequest
from nearline_cli.compose import reranker_trainer
from nearline_cli.compose.reranker_trainer import RankedQuery, check_queries, train_reranker
from tests.optional_packages import needs

COLOURS = ("red", "blue", "green", "yellow", "black", "white")


def _queries(count: int, *, learnable: bool) -> list[RankedQuery]:
    """Returns queries about colours; the hit of that colour is relevant, or a random one."""
    order = random.Random(7)
    found = []
    for number in range(count):
        colour = order.choice(COLOURS)
        shown = order.sample(COLOURS, 6)
        ids = [f"{number}-{one}" for one in shown]
        right = f"{number}-{colour if learnable else order.choice(shown)}"
        found.append(
            RankedQuery(
                f"Which lamp is {colour}?",
                ids,
                [f"Lamps\nThe lamp of room {order.randrange(99)} is {one}." for one in shown],
                np.linspace(1.0, 0.5, 6),
                {right: 1},
            )
        )
    return found


@needs("torch", "torch")
@pytest.mark.long
def test_it_learns_what_the_search_does_not_know(tmp_path: Path) -> None:
    seen: list[int] = []
    out = tmp_path / "reranker.safetensors"
    card = train_reranker(_queries(160, learnable=True), out, 300.0, seen.append)
    assert (card.queries, card.held_out_queries) == (140, 20)
    # Six hits in random order: 1 / log2(1 + rank) on average.
    by_chance = np.mean([1 / np.log2(1 + rank) for rank in range(1, 7)])
    assert card.search_ndcg_at_10 == pytest.approx(by_chance, abs=0.15)
    assert card.reranked_ndcg_at_10 > 0.95 and card.weight > 0
    assert out.stat().st_size < 4_000_000 and sum(seen) == 100


def test_one_that_brings_nothing_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    # The search is perfect, so that nothing can be better.
    queries = [one._replace(grades={one.ids[0]: 1}) for one in _queries(120, learnable=True)]
    out = tmp_path / "reranker.safetensors"
    card = train_reranker(queries, out, 0.0)
    assert card.weight == 0 and card.fingerprint == "" and not out.exists()
    assert card.search_ndcg_at_10 == 1.0


def test_too_few_queries_are_refused_before_anything_is_built(tmp_path: Path) -> None:
    def judged(judgements: Mapping[str, Mapping[str, int]]) -> JudgedDataset:
        return JudgedDataset(
            corpus=tmp_path, queries=dict.fromkeys(judgements, "x"), judgements=judgements
        )

    with pytest.raises(InvalidRequest, match="name them with --tune-on"):
        check_queries(None)
    with pytest.raises(InvalidRequest, match="99 queries are judged, 100 are needed"):
        check_queries(judged({str(n): {"d": 1} for n in range(99)}))
    strange = [one._replace(grades={"elsewhere": 1}) for one in _queries(120, learnable=True)]
    with pytest.raises(InvalidRequest, match="only 0 of 120 judged queries have a relevant"):
        reranker_trainer.train_reranker(strange, tmp_path / "r.safetensors", 1.0)
