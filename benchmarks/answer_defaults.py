"""Fits the shipped models of `generation.confidence`, and tells how well they tell.

Evidence: claims of SciFact train that have evidence against those that have none. Topic: the same
claims asked of SciFact against those asked of a foreign collection. Judged on SciFact's other
split, and by questions that belong to neither.
Run: python -m benchmarks.answer_defaults --store SCIFACT --foreign STORE
    --claims claims_train.jsonl --judge claims_dev.jsonl --strange queries.jsonl
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from generation import confidence
from generation.reading import Reader
from nearline.cli.processes import embedding_process, retrieval_process
from nearline.clients import EmbeddingClient, RetrievalClient
from nearline.contract import DEFAULT_COLLECTION, Question

TOPIC = ("dense_best", "dense_mean", "lexical_best", "coverage_first")
EVIDENCE = (
    *("dense_best", "lexical_best", "coverage_first", "coverage_best"),
    *("sentence_coverage", "sentence_cosine", "words"),
)
_RIDGE = 1.0
_STEPS = 30
_Signals = list[dict[str, float]]


async def _signals(store: str, texts: Sequence[str], embedding: str) -> _Signals:
    async with (
        retrieval_process(Path(store), embedding=embedding) as router,
        RetrievalClient(router.address) as retriever,
        EmbeddingClient(embedding) as embedder,
    ):
        reader = Reader(retriever, embedder)
        found = []
        for text in texts:
            each = await reader.find(Question(text=text), DEFAULT_COLLECTION, None)
            found.append((await reader.read(each, None)).signals)
        return found


def _matrix(signals: _Signals, names: Sequence[str]) -> NDArray[np.float64]:
    return np.array([[each[name] for name in names] for each in signals])


def _fit(
    x: NDArray[np.float64], y: NDArray[np.float64], names: Sequence[str]
) -> tuple[dict[str, tuple[float, float, float]], float]:
    """Logistic regression with a ridge, by Newton's steps; both classes weigh the same."""
    means, scales = x.mean(axis=0), x.std(axis=0)
    z = np.column_stack([(x - means) / scales, np.ones(len(x))])
    share = np.where(y == 1, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    weights = np.zeros(z.shape[1])
    ridge = _RIDGE * np.diag([1.0] * len(names) + [0.0])
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-z @ weights))
        curve = share * p * (1 - p)
        weights += np.linalg.solve(
            (z * curve[:, None]).T @ z + ridge, z.T @ (share * (y - p)) - ridge @ weights
        )
    rows = zip(weights[:-1].tolist(), means.tolist(), scales.tolist(), strict=True)
    model = {
        name: (round(w, 4), round(m, 4), round(s, 4))
        for name, (w, m, s) in zip(names, rows, strict=True)
    }
    return model, round(float(weights[-1]), 4)


def auroc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Gives the chance that a positive scores above a negative; ties count half."""
    both = positive[:, None] - negative[None]
    return float(((both > 0) + 0.5 * (both == 0)).mean())


async def _run(given: argparse.Namespace) -> None:
    claims = [json.loads(line) for line in Path(given.claims).open(encoding="utf-8")]
    judged = [json.loads(line) for line in Path(given.judge).open(encoding="utf-8")]
    strange = [json.loads(line)["text"] for line in Path(given.strange).open(encoding="utf-8")]
    texts = [one["text"] for one in claims]
    async with embedding_process() as service:
        here = await _signals(given.store, texts, service.address)
        foreign = await _signals(given.foreign, texts, service.address)
        judge = await _signals(given.store, [one["text"] for one in judged], service.address)
        odd = await _signals(given.store, strange, service.address)
    has = np.array([bool(one["evidence"]) for one in claims])
    topic = _fit(
        _matrix(here + foreign, TOPIC), np.repeat([1.0, 0.0], [len(here), len(foreign)]), TOPIC
    )
    evidence = _fit(_matrix(here, EVIDENCE), has.astype(float), EVIDENCE)
    print(json.dumps({"topic": topic, "evidence": evidence}))

    def scores(signals: _Signals, model: tuple[dict[str, tuple[float, float, float]], float]):  # type: ignore[no-untyped-def]
        return np.array([confidence.probability(one, *model) for one in signals])

    shown = scores(judge, evidence)
    really = np.array([bool(one["evidence"]) for one in judged])
    order = np.argsort(-shown)
    half = order[: len(order) // 2]
    kept = {
        str(limit): [
            round(float((scores(judge, topic) >= limit).mean()), 3),
            round(float((scores(odd, topic) >= limit).mean()), 3),
        ]
        for limit in (0.3, 0.5, 0.7, 0.9)
    }
    print(
        json.dumps(
            {
                "auroc_off_topic": round(auroc(scores(judge, topic), scores(odd, topic)), 4),
                "auroc_no_evidence": round(auroc(shown[really], shown[~really]), 4),
                "risk_at_half_coverage": round(float((~really[half]).mean()), 4),
                "on_topic_kept_and_strange_kept_by_threshold": kept,
                "answered_and_risk_by_threshold": {
                    str(limit): [
                        round(float((shown >= limit).mean()), 3),
                        round(float((~really[shown >= limit]).mean()), 3),
                    ]
                    for limit in (0.3, 0.4, 0.5, 0.6)
                },
            }
        )
    )


def main() -> None:
    """Fits and prints."""
    parser = argparse.ArgumentParser()
    for name in ("store", "foreign", "claims", "judge", "strange"):
        parser.add_argument(f"--{name}", required=True)
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
