"""The shipped judge of whether a text answers a question: a small change of the default model.

Its input is [CLS] question [SEP] title and headings [SEP] text [SEP], its output one logit.
It was learned by `benchmarks/answers/train_judge.py` of commit 619a38b1.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from embedding.bert_weights import read_tensors
from embedding.judges.low_rank import (
    JudgeEngine,
    JudgeInput,
    changeable_weights,
    judge_model,
    load_backend,
)
from embedding.model import EmbeddingModel
from embedding.pair_scorer import RERANKER, PairScorer
from embedding.settings import EmbeddingSettings
from nearline.contract import ANSWER_JUDGE

ADAPTER_FILE = Path(__file__).with_name("answer_judge.safetensors")
# Most tokens of the question, of title and headings, and of the unit, as in training; and of a
# pair, with four special tokens.
QUESTION_TOKENS, CONTEXT_TOKENS, UNIT_TOKENS = 40, 40, 112
MAX_TOKENS = QUESTION_TOKENS + CONTEXT_TOKENS + UNIT_TOKENS + 4


def answer_input(folder: Path) -> JudgeInput:
    """Returns the encoder of a question and a unit below its context, for a model's folder."""
    return JudgeInput(folder, (QUESTION_TOKENS, CONTEXT_TOKENS, UNIT_TOKENS))


def open_judge(
    model: EmbeddingModel,
    settings: EmbeddingSettings,
    *,
    on_broken: Callable[[], None] | None = None,
) -> PairScorer | None:
    """Loads the judge; None if it is switched off, or if the model or its engine is another one.

    Raises: SettingsError: the weights of the model cannot be read.
    """
    weights = changeable_weights(model, settings) if settings.judge else None
    if weights is None:
        return None
    backend = load_backend(weights, read_tensors([ADAPTER_FILE]), settings.threads)
    return PairScorer(
        judge_model(ANSWER_JUDGE, model, ADAPTER_FILE),
        JudgeEngine(answer_input(model.folder), backend),
        max_tokens=MAX_TOKENS,
        setting=RERANKER,
        settings=settings,
        on_broken=on_broken,
    )
