"""Learns a change of low rank of the default model: from labelled statements, or judged queries.

The result is a file that `embedding.judges.entailment_judge` serves, or the reranker of a snapshot.
This needs torch and transformers (pip install 'nearline-server[torch]').
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embedding.judges.entailment_judge import LABELS, judge_input
from embedding.judges.low_rank_model import LowRankModel, save_change
from embedding.judges.snapshot_rerankers import reranker_input

_RANK = 16
# Tokens of a step, and steps until the full rate of learning is reached.
_TOKENS_AT_ONCE, _WARM_UP = 2_400, 30
# Of a reranker: passes over the queries, the rate, tokens of a step, and irrelevant texts of each
# query in it. Measured on SciFact.
_PASSES, _RATE, _RANKED_TOKENS, _IRRELEVANT = 3.0, 3e-4, 6_000, 7
_WEIGHT_DECAY, _MAX_GRADIENT = 0.01, 1.0


_G = TypeVar("_G")
# Token ids of a pair with its label.
_Encoded: TypeAlias = tuple[NDArray[np.int64], int]


class Example(NamedTuple):
    """A statement, the title and the text of its source, and its label.

    label: 0 supported, 1 contradicted, 2 the source is silent.
    """

    statement: str
    title: str
    source: str
    label: int


class EntailmentModel(LowRankModel):
    """The model that is trained.

    Args:
        folder: Folder of the default model.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, outputs=LABELS, rank=_RANK)
        self._input = judge_input(folder)

    def encode(self, example: Example) -> NDArray[np.int64]:
        """Returns the token ids of an example."""
        title = " ".join(example.title.split())
        return self._input.encode(example.statement, f"{title}\n{example.source}")

    def save(self, out: Path, learned_from: str, *, threshold: float = 0.0) -> None:
        """Writes what was learned, as `embedding.judges.entailment_judge` serves it.

        Args:
            out: The file; an existing one is replaced.
            learned_from: Names the training data.
            threshold: Log odds of supported that become even odds.
        """
        change = self.change()
        change["head.bias"] = change["head.bias"] - np.array([threshold, 0, 0], np.float32)
        save_change(change, out, learned_from)


class RankingModel(LowRankModel):
    """The reranker of a snapshot in training; it starts from the judge of answers.

    Args:
        folder: Folder of the default model.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, outputs=1, rank=32, scale=2.0, frozen_layers=0)
        self._input = reranker_input(folder)

    def encode(self, query: str, text: str) -> NDArray[np.int64]:
        """Returns the token ids of a query and a text with its title on the first line."""
        return self._input.encode(query, text)

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Returns the scores of texts, (n,)."""
        return _predict(self, [self.encode(query, text) for text in texts])[:, 0]


def train(
    model: EntailmentModel,
    groups: Sequence[Sequence[Example]],
    *,
    passes: float,
    rate: float,
    max_s: float = math.inf,
    seed: int = 0,
    progress: Callable[[float, float], None] | None = None,
) -> None:
    """Trains a model on labelled statements.

    Args:
        model: The model.
        groups: Examples; those of a group share a step, such as opposites of one statement.
        passes: How often each group is seen.
        rate: Highest rate of learning; it falls to nearly zero.
        max_s: Seconds after which training ends, with what has been learned.
        seed: Of the order.
        progress: Called after each step with the finished share, 0..1, and the loss.
    """

    def encode(group: Sequence[Example]) -> list[_Encoded]:
        return [(model.encode(one), one.label) for one in group]

    def loss_of(logits: torch.Tensor, labels: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, labels)

    _fit(
        *(model, groups, encode, loss_of, _TOKENS_AT_ONCE),
        passes=passes,
        rate=rate,
        max_s=max_s,
        seed=seed,
        progress=progress,
    )


def train_ranking(
    model: RankingModel,
    groups: Sequence[tuple[str, Sequence[str], Sequence[bool]]],
    *,
    max_s: float = math.inf,
    seed: int = 0,
    progress: Callable[[float, float], None] | None = None,
) -> None:
    """Trains a model to score relevant texts of a query above others (softmax cross-entropy).

    Args:
        model: The model.
        groups: Queries with their texts, and whether each is relevant; at least one is, and one is
            not.
        max_s, seed, progress: See `train`.
    """
    order = random.Random(seed)

    def encode(group: tuple[str, Sequence[str], Sequence[bool]]) -> list[_Encoded]:
        query, texts, relevant = group
        best = order.choice([text for text, is_so in zip(texts, relevant, strict=True) if is_so])
        others = [text for text, is_so in zip(texts, relevant, strict=True) if not is_so]
        drawn = order.sample(others, min(len(others), _IRRELEVANT))
        return [(model.encode(query, text), int(text is best)) for text in (best, *drawn)]

    def loss_of(logits: torch.Tensor, labels: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
        # The relevant text is the first of each query.
        firsts = [part.log_softmax(0)[0] for part in torch.split(logits[:, 0], list(sizes))]
        return -torch.stack(firsts).mean()

    _fit(
        *(model, groups, encode, loss_of, _RANKED_TOKENS),
        passes=_PASSES,
        rate=_RATE,
        max_s=max_s,
        seed=seed,
        progress=progress,
    )


def _fit(
    model: LowRankModel,
    groups: Sequence[_G],
    encode: Callable[[_G], list[_Encoded]],
    loss_of: Callable[[torch.Tensor, torch.Tensor, Sequence[int]], torch.Tensor],
    tokens_at_once: int,
    *,
    passes: float,
    rate: float,
    max_s: float,
    seed: int,
    progress: Callable[[float, float], None] | None,
) -> None:
    """Trains a model; see `train`.

    Args:
        encode: Returns the pairs of a group.
        loss_of: Returns the loss of a step from logits (n, outputs), labels (n,) and the number of
            pairs of each group.
        tokens_at_once: Tokens of a step.
    """
    order = random.Random(seed)
    learned = [part for part in model.parameters() if part.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=rate, weight_decay=_WEIGHT_DECAY)
    start = time.monotonic()
    waiting: list[int] = []
    seen, step, total = 0, 0, passes * len(groups)
    while seen < total and (spent := time.monotonic() - start) < max_s:
        share = max(seen / total, spent / max_s)
        batch: list[list[_Encoded]] = []
        while sum(len(ids) for one in batch for ids, _ in one) < tokens_at_once and seen < total:
            if not waiting:
                waiting = list(range(len(groups)))
                order.shuffle(waiting)
            batch.append(encode(groups[waiting.pop()]))
            seen += 1
        for part in optimizer.param_groups:
            part["lr"] = rate * min(1.0, (step + 1) / _WARM_UP) * max(0.02, 1 - share)
        pairs = [pair for one in batch for pair in one]
        logits = _logits(model, [ids for ids, _ in pairs])
        labels = torch.tensor([label for _, label in pairs])
        loss = loss_of(logits, labels, [len(one) for one in batch])
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learned, _MAX_GRADIENT)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if progress is not None:
            progress(min(1.0, max(seen / total, spent / max_s)), loss.item())


def _logits(model: LowRankModel, pairs: Sequence[NDArray[np.int64]]) -> torch.Tensor:
    """Returns the logits of pairs, computed in halves of similar length: less padding."""
    order = sorted(range(len(pairs)), key=lambda at: len(pairs[at]))
    middle = len(order) // 2
    halves = [half for half in (order[:middle], order[middle:]) if half]
    found = torch.cat([model([pairs[at] for at in half]) for half in halves])
    return found[torch.from_numpy(np.argsort(order))]


def predict(model: EntailmentModel, examples: Sequence[Example]) -> NDArray[np.float32]:
    """Returns the logits of examples, (n, 3): supported, contradicted, silent."""
    return _predict(model, [model.encode(one) for one in examples])


@torch.no_grad()
def _predict(model: LowRankModel, pairs: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
    order = sorted(range(len(pairs)), key=lambda at: len(pairs[at]))
    parts = [order[first : first + 16] for first in range(0, len(order), 16)]
    logits = np.zeros((len(pairs), model.head.out_features), np.float32)
    for rows in parts:
        logits[rows] = model([pairs[at] for at in rows]).numpy()
    return logits
