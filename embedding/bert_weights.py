"""Reads the weights of a BERT-like encoder into numpy, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from embedding.model import EmbeddingModel, PoolingMode
from embedding.model_files import list_weights, read_json
from nearline.errors import SettingsError

Array = NDArray[np.float32]

# RoBERTa counts positions from the padding id, and leaves out padding; its layers are BERT's.
_ARCHITECTURES = {"bert": False, "roberta": True, "xlm-roberta": True}
_WORDS = "embeddings.word_embeddings.weight"


@dataclass(frozen=True, slots=True)
class Linear:
    """weight: (outputs, inputs). bias: (outputs,)."""

    weight: Array
    bias: Array


@dataclass(frozen=True, slots=True)
class Norm:
    """Layer normalisation. scale, shift: (hidden,)."""

    scale: Array
    shift: Array


@dataclass(frozen=True, slots=True)
class BertLayer:
    """Attention over all tokens, then a network per token; each is added and normalised."""

    query: Linear
    key: Linear
    value: Linear
    attended: Linear
    attended_norm: Norm
    up: Linear
    down: Linear
    norm: Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class BertWeights:
    """An encoder of a BERT-like model, all in float32.

    words, positions: (vocabulary, hidden) and (most positions, hidden). token_type: (hidden,), of
    the first and only segment. heads: Attention heads; hidden is a multiple. epsilon: Of every
    normalisation. padding_offset: The padding id of a model whose positions start after it and skip
    padding; None if they are 0, 1, 2….
    """

    words: Array
    positions: Array
    token_type: Array
    norm: Norm
    layers: tuple[BertLayer, ...]
    heads: int
    epsilon: float
    padding_offset: int | None
    pooling: PoolingMode


def read_bert(model: EmbeddingModel) -> BertWeights | None:
    """Reads an encoder; None if its architecture or its number format is not known here.

    Raises: SettingsError: the files are damaged, or lack a tensor.
    """
    config = read_json(model.folder / "config.json", maker="SentenceTransformer")
    kind = str(config.get("model_type"))
    if (
        kind not in _ARCHITECTURES
        or config.get("hidden_act", "gelu") != "gelu"
        or config.get("position_embedding_type", "absolute") != "absolute"
        or config.get("is_decoder", False)
    ):
        return None
    try:
        tensors = read_tensors(list_weights(model.folder))
        prefix = next(name for name in tensors if name.endswith(_WORDS)).removesuffix(_WORDS)
        return _assemble(
            {name.removeprefix(prefix): tensor for name, tensor in tensors.items()},
            layers=_whole(config, "num_hidden_layers"),
            heads=_whole(config, "num_attention_heads"),
            epsilon=float(str(config.get("layer_norm_eps", 1e-12))),
            padding_offset=model.pad_id if _ARCHITECTURES[kind] else None,
            pooling=model.pooling,
        )
    except TypeError:
        return None  # numpy has no bfloat16.
    # A missing tensor, a missing number, one that is none, a file cut short.
    except (KeyError, StopIteration, ValueError, OSError, SafetensorError) as error:
        raise SettingsError(
            f"the weights in {model.folder} do not fit its config.json "
            f"({type(error).__name__}: {str(error)[:200]}); download the model again"
        ) from error


# What `read_tensors` raises for a file that is damaged or cannot be read.
UNREADABLE = (SafetensorError, ValueError, OSError)


def read_tensors(files: list[Path]) -> dict[str, Array]:
    """Reads the floating-point tensors of files, as float32."""
    tensors: dict[str, Array] = {}
    for file in files:
        with safe_open(file, framework="numpy") as source:
            for name in source.keys():
                tensor = source.get_tensor(name)
                if tensor.dtype.kind == "f":
                    tensors[name] = tensor.astype(np.float32)
    return tensors


def _assemble(
    tensors: Mapping[str, Array],
    *,
    layers: int,
    heads: int,
    epsilon: float,
    padding_offset: int | None,
    pooling: PoolingMode,
) -> BertWeights:
    def linear(name: str) -> Linear:
        return Linear(tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def norm(name: str) -> Norm:
        return Norm(tensors[f"{name}.LayerNorm.weight"], tensors[f"{name}.LayerNorm.bias"])

    def layer(name: str) -> BertLayer:
        return BertLayer(
            query=linear(f"{name}.attention.self.query"),
            key=linear(f"{name}.attention.self.key"),
            value=linear(f"{name}.attention.self.value"),
            attended=linear(f"{name}.attention.output.dense"),
            attended_norm=norm(f"{name}.attention.output"),
            up=linear(f"{name}.intermediate.dense"),
            down=linear(f"{name}.output.dense"),
            norm=norm(f"{name}.output"),
        )

    return BertWeights(
        words=tensors[_WORDS],
        positions=tensors["embeddings.position_embeddings.weight"],
        token_type=tensors["embeddings.token_type_embeddings.weight"][0],
        norm=norm("embeddings"),
        layers=tuple(layer(f"encoder.layer.{number}") for number in range(layers)),
        heads=heads,
        epsilon=epsilon,
        padding_offset=padding_offset,
        pooling=pooling,
    )


def _whole(config: Mapping[str, object], name: str) -> int:
    value = config[name]
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}")
    return value
