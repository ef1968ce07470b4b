"""The parts that both judges have: a change of low rank of the default model, input and engine.

The change is of low rank (LoRA: Hu et al., 2021), so its file is small, and the weights are those
that the embedding model has anyway.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from embedding.backend import Backend, PaddedBackend
from embedding.bert_weights import Array, BertLayer, BertWeights, Linear, Norm, read_bert
from embedding.model import DEFAULT_SHA256, EmbeddingModel
from embedding.model_cache import installed_version
from embedding.model_files import StoredModel
from embedding.pairs import TextPair
from embedding.settings import EmbeddingSettings


class JudgeInput:
    """Turns two texts into token ids: [CLS] first [SEP] title [SEP] second [SEP].

    Use it from one thread.

    Args:
        folder: Folder of the model, with tokenizer.json.
        lengths: Most tokens of the three parts.
    """

    def __init__(self, folder: Path, lengths: tuple[int, int, int]) -> None:
        self._lengths = lengths
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._start = self._tokenizer.token_to_id("[CLS]")
        self._end = self._tokenizer.token_to_id("[SEP]")

    def encode(self, first: str, second: str) -> NDArray[np.int64]:
        """Returns the ids; the second's first line is the title, if there is another one."""
        title, line, text = second.partition("\n")
        if not line:
            title, text = "", second
        ids = [self._start]
        for part, most in zip((first, title, text), self._lengths, strict=True):
            ids += [*self._tokenizer.encode(part, add_special_tokens=False).ids[:most], self._end]
        return np.array(ids, np.int64)


class JudgeEngine:
    """An `Engine` of pairs of texts, which the judge reads in their order.

    Args:
        encoder: Makes its input.
        backend: Turns token ids into the logits of the judge.
    """

    def __init__(self, encoder: JudgeInput, backend: Backend) -> None:
        self._encoder = encoder
        self._padded = PaddedBackend(backend)
        self.width, self.slots = self._padded.width, self._padded.slots
        self.pad_multiple = self._padded.pad_multiple

    def encode(self, pair: TextPair) -> NDArray[np.int64]:
        """Returns the token ids of a pair."""
        return self._encoder.encode(pair.first, pair.second)

    def run(self, items: Sequence[TextPair], slot: int) -> NDArray[np.float32]:
        """Scores pairs as one batch; see `Engine.run`."""
        return self._padded.run([self.encode(one) for one in items], slot)


def changeable_weights(model: EmbeddingModel, settings: EmbeddingSettings) -> BertWeights | None:
    """Reads the weights that a judge changes; None if the model or its engine is another one.

    Raises: SettingsError: the weights of the model cannot be read.
    """
    if (
        settings.backend == "torch"
        or model.weights_sha256 != DEFAULT_SHA256
        or not installed_version("openvino")
    ):
        return None
    return read_bert(model)


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


def load_backend(weights: BertWeights, change: Mapping[str, Array], threads: int) -> Backend:
    """Loads the changed model with the head of the change.

    Args:
        weights: As `changeable_weights` returns them.
        change: See `adapt`; with `head.weight` (outputs, hidden) and `head.bias` (outputs,).
        threads: See `EmbeddingSettings`.
    """
    from embedding.bert_graph import build_scoring_graph
    from embedding.openvino_backend import OpenVINOBackend, has_bf16

    head = Linear(change["head.weight"], change["head.bias"])
    return OpenVINOBackend(
        build_scoring_graph(adapt(weights, change), head),
        "bf16" if has_bf16() else "f32",
        threads=threads,
        # One request waits for one batch, which all threads work on.
        streams=1,
    )


def judge_model(name: str, model: EmbeddingModel, file: Path) -> StoredModel:
    """Returns the name and the fingerprint under which the change in a file is served."""
    return StoredModel(
        name=name,
        folder=model.folder,
        fingerprint=hashlib.sha256(file.read_bytes()).hexdigest()[:32],
    )
