"""Small cross-encoders with random weights, written without a hub; and one of known scores."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedding.model_files import StoredModel
from embedding.pairs import TextPair

MAX_TOKENS = 32
NLI_LABELS = ("Contradiction", "ENTAILMENT", "neutral")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_WORDS = (*(f"w{number}" for number in range(100)), "café", "東京", "🙂")


def write_cross_encoder(folder: Path, labels: Sequence[str] = ("score",), seed: int = 1) -> Path:
    """Writes a BERT of two layers that reads 32 tokens of the words w0…w99."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = (*_SPECIAL, *_WORDS)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    fast.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=MAX_TOKENS,
        initializer_range=0.5,
        id2label=dict(enumerate(labels)),
        label2id={label: row for row, label in enumerate(labels)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def pair_model(name: str = "words") -> StoredModel:
    """Returns a model that lies nowhere, for an engine that needs none."""
    return StoredModel(name=name, folder=Path("nowhere"), fingerprint="f" * 32)


class FakeEngine:
    """Scores a pair by the characters of its second text, and 100 times those of its first.

    hold and release: See `FakeBackend`. poison: A second text that no batch may contain.
    batches: Second texts of every batch begun. entered: Released once per batch begun.
    """

    slots = 1
    pad_multiple = 1
    width = 2

    def __init__(self, poison: str = "") -> None:
        self.poison = poison
        self.batches: list[list[str]] = []
        self.entered = threading.Semaphore(0)
        self._open = threading.Event()
        self._open.set()

    def hold(self) -> None:
        """Makes every batch wait."""
        self._open.clear()

    def release(self) -> None:
        """Lets them go."""
        self._open.set()

    def run(self, items: Sequence[TextPair], slot: int) -> NDArray[np.float32]:
        """Returns the scores."""
        self.batches.append([pair.second for pair in items])
        self.entered.release()
        assert self._open.wait(20)
        if self.poison in self.batches[-1]:
            raise RuntimeError("the engine does not like this batch")
        return np.array([[len(p.second), 100 * len(p.first)] for p in items], np.float32)
