"""The torch backend: the reference for every other backend, and the one for CUDA."""

from __future__ import annotations

import contextlib
import os
import threading

# Not in a process with FAISS: two OpenMP runtimes.
import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import nn

from embedding.backend import TokenBatch
from embedding.model import EmbeddingModel, PoolingMode
from nearline.errors import SettingsError

PRECISIONS = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


class PooledEncoder(nn.Module):
    """A transformer with its pooling and normalisation: token ids to unit vectors.

    Args:
        model: The model to load.
        dtype: Number format of the weights; pooling is done in float32.
    """

    def __init__(self, model: EmbeddingModel, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self.encoder = transformers.AutoModel.from_pretrained(
            model.folder, dtype=dtype, local_files_only=True, use_safetensors=True
        ).eval()
        self.pooling = model.pooling

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Returns (n, dim) float32 of unit length from (n, longest) ids and mask."""
        hidden = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state.float()
        if self.pooling is PoolingMode.CLS:
            pooled = hidden[:, 0]
        else:
            weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(pooled, dim=1)


class TorchBackend:
    """A `Backend` over torch.

    Args:
        model: The model to load.
        precision: "f32", "bf16" or "f16".
        device: A torch device: "cpu", "cuda", "cuda:1".
        threads: CPU threads; 0 lets torch choose.
    Raises: SettingsError: the precision or the device is unknown.
    """

    slots = 1

    def __init__(
        self,
        model: EmbeddingModel,
        precision: str = "f32",
        *,
        device: str = "cpu",
        threads: int = 0,
    ) -> None:
        if precision not in PRECISIONS:
            raise SettingsError(
                f"torch has no precision {precision!r}; use one of {', '.join(PRECISIONS)}"
            )
        if threads:
            torch.set_num_threads(threads)
        self.name = f"torch-{precision}"
        self.dim = model.dim
        # Tensor cores, and attention with a mask, want lengths that are multiples of 8.
        self.pad_multiple = 1 if device == "cpu" else 8
        self._streams = threading.local()
        try:
            self._device = torch.device(device)
            self._encoder = PooledEncoder(model, PRECISIONS[precision]).to(self._device)
            self._on_gpu = self._device.type == "cuda"
        except (RuntimeError, AssertionError) as error:
            raise SettingsError(
                f"device {device!r} cannot be used ({str(error).splitlines()[0]}); use "
                "cpu, or one that nearline doctor lists"
            ) from error

    def embed(self, batch: TokenBatch, slot: int) -> NDArray[np.float32]:
        """Runs the model; see `Backend.embed`."""
        with torch.inference_mode(), self._stream():
            ids, mask = self._tensor(batch.ids), self._tensor(batch.mask)
            vectors: NDArray[np.float32] = self._encoder(ids, mask).cpu().numpy()
        return vectors

    def _stream(self) -> contextlib.AbstractContextManager[object]:
        """Returns the stream of the calling thread: on a GPU, threads do not wait for others."""
        if not self._on_gpu:
            return contextlib.nullcontext()
        if not hasattr(self._streams, "stream"):
            self._streams.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        # Also makes the device that of the thread.
        return torch.cuda.stream(self._streams.stream)

    def _tensor(self, values: NDArray[np.int64]) -> torch.Tensor:
        tensor = torch.from_numpy(values)
        if self._on_gpu:
            # Only from pinned memory is a copy asynchronous.
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=self._on_gpu)
