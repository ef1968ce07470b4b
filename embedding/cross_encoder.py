"""sentence-transformers' CrossEncoder, as an engine of the batcher."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

# Not in a process with FAISS: two OpenMP runtimes.
import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder
from torch import nn

from embedding.pairs import TextPair
from nearline.errors import SettingsError

# If neither tokenizer nor model states a limit.
_MAX_TOKENS = 8192


class CrossEncoderEngine:
    """An `Engine` of pairs over a CrossEncoder, in float32.

    labels: Meaning of each number in a row, in lower case. max_tokens: Most tokens that the model
    reads of a pair, special tokens included.

    Args:
        folder: Folder of the model; nothing is downloaded.
        probabilities: Whether to return softmax over the labels instead of the model's own
            activation.
        device: A torch device: "cpu", "cuda", "cuda:1".
        threads: CPU threads; 0 lets torch choose.
    Raises: SettingsError: the folder cannot be loaded, or there is no such device.
    """

    slots = 1
    pad_multiple = 1

    def __init__(
        self, folder: Path, *, probabilities: bool, device: str = "cpu", threads: int = 0
    ) -> None:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        if threads:
            torch.set_num_threads(threads)
        try:
            self._encoder = CrossEncoder(
                str(folder),
                device=device,
                local_files_only=True,
                model_kwargs={"use_safetensors": True, "dtype": torch.float32},
            )
            self.width = self._encoder.num_labels
            names = self._encoder.config.id2label if self._encoder.config is not None else {}
            self.labels = tuple(str(names.get(row, row)).lower() for row in range(self.width))
        # The library raises errors of its own, of three others, and those caused by broken files.
        except Exception as error:
            raise SettingsError(
                f"cross-encoder {folder} cannot be loaded on device {device!r} "
                f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); "
                "check the folder and the device, or save the model again with "
                "CrossEncoder(…).save_pretrained(folder)"
            ) from error
        self.max_tokens = min(self._encoder.max_seq_length or _MAX_TOKENS, _MAX_TOKENS)
        self._softmax = probabilities
        # Softmax needs logits; None keeps the activation that the model was saved with.
        self._activation = nn.Identity() if probabilities else None

    def run(self, items: Sequence[TextPair], slot: int) -> NDArray[np.float32]:
        """Scores pairs as one batch; see `Engine.run`. Returns: (n, labels) float32, finite."""
        scores = self._encoder.predict(
            [(pair.first, pair.second) for pair in items],
            batch_size=len(items),
            show_progress_bar=False,
            activation_fn=self._activation,
            apply_softmax=self._softmax,
        )
        rows = np.asarray(scores, np.float32).reshape(len(items), self.width)
        if not np.isfinite(rows).all():
            raise FloatingPointError("a score is not a finite number")
        return rows
