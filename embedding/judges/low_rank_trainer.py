"""Learns a change of low rank of the default model from labelled statements.

The result is a file that `embedding.judges.entailment_judge` serves. This needs torch and
transformers (pip install 'nearline-server[torch]').
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embedding.judges.entailment_judge import LABELS, judge_input
from embedding.judges.low_rank_model import LowRankModel, save_change

_RANK = 16
# Tokens of a step, and steps until the full rate of learning is reached.
_TOKENS_AT_ONCE, _WARM_UP = 2_400, 30
_WEIGHT_DECAY, _MAX_GRADIENT = 0.01, 1.0


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
    """Trains a model.

    Args:
        model: The model.
        groups: Examples; those of a group share a step, such as opposites of one statement.
        passes: How often each group is seen.
        rate: Highest rate of learning; it falls to nearly zero.
        max_s: Seconds after which training ends, with what has been learned.
        seed: Of the order.
        progress: Called after each step with the finished share, 0..1, and the loss.
    """
    order = random.Random(seed)
    learned = [part for part in model.parameters() if part.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=rate, weight_decay=_WEIGHT_DECAY)
    start = time.monotonic()
    waiting: list[int] = []
    seen, step, total = 0, 0, passes * len(groups)
    while seen < total and (spent := time.monotonic() - start) < max_s:
        share = max(seen / total, spent / max_s)
        batch: list[tuple[NDArray[np.int64], int]] = []
        while sum(len(ids) for ids, _ in batch) < _TOKENS_AT_ONCE and seen < total:
            if not waiting:
                waiting = list(range(len(groups)))
                order.shuffle(waiting)
            batch += [(model.encode(one), one.label) for one in groups[waiting.pop()]]
            seen += 1
        for part in optimizer.param_groups:
            part["lr"] = rate * min(1.0, (step + 1) / _WARM_UP) * max(0.02, 1 - share)
        loss = _step(model, batch)
        nn.utils.clip_grad_norm_(learned, _MAX_GRADIENT)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if progress is not None:
            progress(seen / total, loss)


def _step(model: EntailmentModel, batch: list[tuple[NDArray[np.int64], int]]) -> float:
    """Adds the gradients of a batch, in halves of similar length; returns its mean loss."""
    batch.sort(key=lambda one: len(one[0]))
    middle = len(batch) // 2
    total = 0.0
    for half in (batch[:middle], batch[middle:]):
        if half:
            logits = model([ids for ids, _ in half])
            labels = torch.tensor([label for _, label in half])
            loss = nn.functional.cross_entropy(logits, labels, reduction="sum") / len(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
    return total


@torch.no_grad()
def predict(model: EntailmentModel, examples: Sequence[Example]) -> NDArray[np.float32]:
    """Returns the logits of examples, (n, 3): supported, contradicted, silent."""
    ids = [model.encode(one) for one in examples]
    logits = np.zeros((len(ids), LABELS), np.float32)
    order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
    for first in range(0, len(order), 16):
        rows = order[first : first + 16]
        logits[rows] = model([ids[at] for at in rows]).numpy()
    return logits
