"""The shipped judge of whether a sentence answers a question: a small change of the default model.

The change is of low rank (LoRA: Hu et al., 2021), so its file is small, and the weights are those
that the embedding model has anyway. `benchmarks/train_answer_judge.py` learns it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from embedding.backend import Backend, PaddedBackend
from embedding.bert_weights import (
    Array,
    BertLayer,
    BertWeights,
    Linear,
    Norm,
    read_bert,
    read_tensors,
)
from embedding.model import DEFAULT_SHA256, EmbeddingModel
from embedding.model_cache import installed_version
from embedding.model_files import StoredModel
from embedding.pair_scorer import RERANKER, PairScorer
from embedding.pairs import TextPair
from embedding.settings import EmbeddingSettings
from nearline.contract import ANSWER_JUDGE

ADAPTER_FILE = Path(__file__).with_name("answer_judge.safetensors")
# Most tokens of the question, the title and the sentence, as in training; and of a pair, with four
# special tokens.
QUESTION_TOKENS, TITLE_TOKENS, SENTENCE_TOKENS = 40, 16, 72
MAX_TOKENS = QUESTION_TOKENS + TITLE_TOKENS + SENTENCE_TOKENS + 4


class JudgeInput:
    """Turns a question and a text into token ids: [CLS] question [SEP] title [SEP] sentence [SEP].

    Use it from one thread.

    Args:
        folder: Folder of the model, with tokenizer.json.
        lengths: Most tokens of the three parts.
    """

    def __init__(
        self,
        folder: Path,
        lengths: tuple[int, int, int] = (QUESTION_TOKENS, TITLE_TOKENS, SENTENCE_TOKENS),
    ) -> None:
        self._lengths = lengths
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._start = self._tokenizer.token_to_id("[CLS]")
        self._end = self._tokenizer.token_to_id("[SEP]")

    def encode(self, question: str, text: str) -> NDArray[np.int64]:
        """Returns the ids; the first line of the text is the title, if there is another one."""
        title, line, sentence = text.partition("\n")
        if not line:
            title, sentence = "", text
        ids = [self._start]
        for part, most in zip((question, title, sentence), self._lengths, strict=True):
            ids += [*self._tokenizer.encode(part, add_special_tokens=False).ids[:most], self._end]
        return np.array(ids, np.int64)


class JudgeEngine:
    """An `Engine` of pairs of a question and a text.

    Args:
        encoder: Makes its input.
        backend: Turns token ids into one logit each.
    """

    def __init__(self, encoder: JudgeInput, backend: Backend) -> None:
        self._encoder = encoder
        self._padded = PaddedBackend(backend)
        self.width, self.slots = self._padded.width, self._padded.slots
        self.pad_multiple = self._padded.pad_multiple

    def run(self, items: Sequence[TextPair], slot: int) -> NDArray[np.float32]:
        """Scores pairs as one batch; see `Engine.run`."""
        return self._padded.run(
            [self._encoder.encode(one.first, one.second) for one in items], slot
        )


def adapt(weights: BertWeights, change: Mapping[str, Array]) -> BertWeights:
    """Returns weights with a change of low rank added.

    Args:
        weights: The weights of the embedding model.
        change: `N.query.down` (rank, inputs) and `N.query.up` (outputs, rank) for a linear part of
            layer N, `N.norm.scale` and `N.norm.shift` for a norm; parts without are unchanged.
    """

    def linear(number: int, name: str, part: Linear) -> Linear:
        down = change.get(f"{number}.{name}.down")
        if down is None:
            return part
        return Linear(part.weight + change[f"{number}.{name}.up"] @ down, part.bias)

    def norm(number: int, name: str, part: Norm) -> Norm:
        scale = change.get(f"{number}.{name}.scale")
        if scale is None:
            return part
        return Norm(scale, change[f"{number}.{name}.shift"])

    layers = []
    for number, layer in enumerate(weights.layers):
        layers.append(
            BertLayer(
                query=linear(number, "query", layer.query),
                key=linear(number, "key", layer.key),
                value=linear(number, "value", layer.value),
                attended=linear(number, "attended", layer.attended),
                attended_norm=norm(number, "attended_norm", layer.attended_norm),
                up=linear(number, "up", layer.up),
                down=linear(number, "down", layer.down),
                norm=norm(number, "norm", layer.norm),
            )
        )
    return replace(weights, layers=tuple(layers))


def open_judge(
    model: EmbeddingModel,
    settings: EmbeddingSettings,
    *,
    on_broken: Callable[[], None] | None = None,
) -> PairScorer | None:
    """Loads the judge; None if it is switched off, or if the model or its engine is another one.

    Raises: SettingsError: the weights of the model cannot be read.
    """
    if (
        not settings.judge
        or settings.backend == "torch"
        or model.weights_sha256 != DEFAULT_SHA256
        or not installed_version("openvino")
    ):
        return None
    from embedding.bert_graph import build_scoring_graph
    from embedding.openvino_backend import OpenVINOBackend, has_bf16

    weights = read_bert(model)
    if weights is None:
        return None
    change = read_tensors([ADAPTER_FILE])
    head = Linear(change["head.weight"], change["head.bias"])
    backend = OpenVINOBackend(
        build_scoring_graph(adapt(weights, change), head),
        "bf16" if has_bf16() else "f32",
        threads=settings.threads,
        # One question waits for one batch, which all threads work on.
        streams=1,
    )
    return PairScorer(
        StoredModel(
            name=ANSWER_JUDGE,
            folder=model.folder,
            fingerprint=hashlib.sha256(ADAPTER_FILE.read_bytes()).hexdigest()[:32],
        ),
        JudgeEngine(JudgeInput(model.folder), backend),
        max_tokens=MAX_TOKENS,
        setting=RERANKER,
        settings=settings,
        on_broken=on_broken,
    )
