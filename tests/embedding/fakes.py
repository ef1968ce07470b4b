"""A backend whose vectors are known by arithmetic, and a small model folder."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from embedding.backend import TokenBatch
from embedding.model import EmbeddingModel, PoolingMode
from embedding.pair_scorer import PairScorer

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(100)))
DIM = 4


def expected(ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns the unit vector of a text: its sum, its length, its first and its last token."""
    raw = np.array([sum(map(int, ids)), len(ids), int(ids[0]), int(ids[-1])], np.float64) + 1
    return np.asarray(raw / np.linalg.norm(raw), np.float32)


class FakeBackend:
    """Computes `expected` from ids and mask. `hold` keeps the model busy until `release`.

    poison: Token ids that no batch may contain. batches: Ids of every batch begun, in order.
    entered: Released once per batch begun.
    """

    name = "fake"
    dim = DIM

    def __init__(self, slots: int = 1, pad_multiple: int = 1, poison: Sequence[int] = ()) -> None:
        self.slots = slots
        self.pad_multiple = pad_multiple
        self.poison = frozenset(poison)
        self.batches: list[list[list[int]]] = []
        self.entered = threading.Semaphore(0)
        self._open = threading.Event()
        self._open.set()

    def hold(self) -> None:
        """Makes every batch wait."""
        self._open.clear()

    def release(self) -> None:
        """Lets them go."""
        self._open.set()

    def embed(self, batch: TokenBatch, slot: int) -> NDArray[np.float32]:
        """Returns the vectors."""
        texts = [row[mask == 1].tolist() for row, mask in zip(batch.ids, batch.mask, strict=True)]
        self.batches.append(texts)
        self.entered.release()
        assert self._open.wait(20)
        if self.poison & {token for text in texts for token in text}:
            raise RuntimeError("the engine does not like this batch")
        return np.stack([expected(text) for text in texts])


def write_model(folder: Path, *, pooling: dict[str, object] | None = None) -> Path:
    """Writes a sentence-transformers folder of words w0…w99, without real weights."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    (folder / "1_Pooling").mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "model.safetensors").write_bytes(b"not really weights")
    files: dict[str, object] = {
        "config.json": {"hidden_size": DIM, "max_position_embeddings": 64, "pad_token_id": 0},
        "modules.json": [
            {"type": "sentence_transformers.models.Transformer", "path": ""},
            {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
        ],
        "sentence_bert_config.json": {"max_seq_length": 8},
        "1_Pooling/config.json": pooling or {"embedding_dimension": DIM, "pooling_mode": "mean"},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), "utf-8")
    return folder


def write_bert(folder: Path, *, pooling: str = "mean", kind: str = "bert", seed: int = 1) -> Path:
    """Writes a folder as `write_model`, with the random weights of a BERT or XLM-RoBERTa.

    Two layers of two heads; the padding id is 0 for BERT, and 1 for XLM-RoBERTa.
    """
    write_model(folder, pooling={"embedding_dimension": DIM, "pooling_mode": pooling})
    config = {
        "model_type": kind,
        "vocab_size": len(WORDS),
        "hidden_size": DIM,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "max_position_embeddings": 64,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 0 if kind == "bert" else 1,
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(WORDS), DIM),
        "embeddings.position_embeddings.weight": (64, DIM),
        "embeddings.token_type_embeddings.weight": (2, DIM),
        "embeddings.LayerNorm.weight": (DIM,),
        "embeddings.LayerNorm.bias": (DIM,),
    }
    for layer in range(2):
        prefix = f"encoder.layer.{layer}"
        for name, outputs, inputs in (
            ("attention.self.query", DIM, DIM),
            ("attention.self.key", DIM, DIM),
            ("attention.self.value", DIM, DIM),
            ("attention.output.dense", DIM, DIM),
            ("intermediate.dense", 8, DIM),
            ("output.dense", DIM, 8),
        ):
            shapes[f"{prefix}.{name}.weight"] = (outputs, inputs)
            shapes[f"{prefix}.{name}.bias"] = (outputs,)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{prefix}.{name}.weight"] = shapes[f"{prefix}.{name}.bias"] = (DIM,)
    chance = np.random.default_rng(seed)
    tensors = {name: chance.normal(size=shape).astype("f4") for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def word_model(
    folder: Path, *, query_prompt: str = "", document_prompt: str = ""
) -> EmbeddingModel:
    """Returns a model whose tokenizer knows w0…w99 and which reads 8 tokens."""
    return EmbeddingModel(
        name="words",
        folder=write_model(folder),
        weights_sha256="0" * 64,
        tokenizer_sha256="1" * 64,
        pooling=PoolingMode.MEAN,
        dim=DIM,
        max_tokens=8,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
    )


@asynccontextmanager
async def started(scorer: PairScorer | None) -> AsyncIterator[PairScorer]:
    """Runs a scorer, which must be there, for the length of the block."""
    assert scorer is not None
    scorer.batcher.start()
    try:
        yield scorer
    finally:
        await scorer.batcher.close()
