"""The shipped judge of whether a source supports a statement, or contradicts it.

Like the judge of answers, it is a change of low rank of the default model. Its input is
[CLS] statement [SEP] title [SEP] source [SEP], its outputs are logits of supported, contradicted
and silent. It was learned by `benchmarks/train_entailment_judge.py` of commit 619a38b1;
`embedding.judges.low_rank_trainer` learns such a change from labelled statements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedding.bert_weights import UNREADABLE, Array, read_tensors
from embedding.judges.low_rank import (
    JudgeEngine,
    JudgeInput,
    changeable_weights,
    judge_model,
    load_backend,
)
from embedding.model import EmbeddingModel
from embedding.pair_scorer import ENTAILMENT, PairScorer, is_change
from embedding.pairs import TextPair
from embedding.settings import EmbeddingSettings
from nearline.contract import ENTAILMENT_JUDGE
from nearline.errors import SettingsError

SHIPPED_FILE = Path(__file__).with_name("entailment_judge.safetensors")
# Most tokens of the statement, the title and the source, as in training; and of a pair, with four
# special tokens. A longer source is cut.
STATEMENT_TOKENS, TITLE_TOKENS, SOURCE_TOKENS = 64, 16, 160
MAX_TOKENS = STATEMENT_TOKENS + TITLE_TOKENS + SOURCE_TOKENS + 4
LABELS = 3  # Supported, contradicted, silent.
# Largest file that is read; a change of all parts at rank 64 has 5 MB.
_MAX_BYTES = 16 << 20


def judge_input(folder: Path) -> JudgeInput:
    """Returns the encoder of a statement and its source, for a model's folder."""
    return JudgeInput(folder, (STATEMENT_TOKENS, TITLE_TOKENS, SOURCE_TOKENS))


class EntailmentEngine(JudgeEngine):
    """An `Engine` of pairs of a source and a statement, in this order; the statement is read first.

    Args: See `JudgeEngine`; the backend has three logits.
    """

    def encode(self, pair: TextPair) -> NDArray[np.int64]:
        """Returns the token ids of a pair."""
        return self._encoder.encode(pair.second, pair.first)

    def run(self, items: Sequence[TextPair], slot: int) -> NDArray[np.float32]:
        """Returns (n, 3) probabilities of supported, contradicted and silent; see `Engine.run`."""
        logits = super().run(items, slot)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def open_entailment_judge(
    model: EmbeddingModel,
    settings: EmbeddingSettings,
    *,
    on_broken: Callable[[], None] | None = None,
) -> PairScorer | None:
    """Loads the judge that the setting `entailment` names.

    Returns: None if it names none.
    Raises: SettingsError: the named file is not such a change, or the model or its engine cannot
        use it; or the weights of the model cannot be read.
    """
    name = settings.entailment
    if not is_change(name):
        return None
    weights = changeable_weights(model, settings)
    if weights is None:
        raise SettingsError(
            f"entailment {name} changes all-MiniLM-L6-v2 on OpenVINO, but the service runs "
            "another model or engine; name a CrossEncoder folder, or leave the setting empty"
        )
    file = SHIPPED_FILE if name == ENTAILMENT_JUDGE else Path(name)
    backend = load_backend(weights, read_change(file), settings.threads)
    return PairScorer(
        judge_model(ENTAILMENT_JUDGE, model, file),
        EntailmentEngine(judge_input(model.folder), backend),
        columns=(0, 1),
        max_tokens=MAX_TOKENS,
        setting=ENTAILMENT,
        settings=settings,
        on_broken=on_broken,
    )


def read_change(file: Path) -> Mapping[str, Array]:
    """Reads a change of low rank with a head of three outputs.

    Raises: SettingsError: there is no such file, it is too large, or it is of another kind.
    """
    try:
        size = file.stat().st_size
    except OSError as error:
        raise SettingsError(
            f"entailment {file} cannot be read ({error.strerror}); name a file that `nearline "
            "models train-entailment` wrote"
        ) from error
    if size > _MAX_BYTES:
        raise SettingsError(
            f"entailment {file} has {size} bytes, {_MAX_BYTES} are allowed; name a file that "
            "`nearline models train-entailment` wrote"
        )
    try:
        change = read_tensors([file])
    except UNREADABLE as error:
        raise SettingsError(
            f"entailment {file} is damaged ({type(error).__name__}); copy it again, or name a file "
            "that `nearline models train-entailment` wrote"
        ) from error
    head = change.get("head.weight")
    if head is None or head.ndim != 2 or head.shape[0] != LABELS or "head.bias" not in change:
        raise SettingsError(
            f"entailment {file} is not a judge with {LABELS} outputs; name a file that `nearline "
            "models train-entailment` wrote"
        )
    return change
