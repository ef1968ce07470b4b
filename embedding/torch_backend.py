"""The torch backend: the reference for every other backend, and the one for CUDA."""

from __future__ import annotations

import os
from collections.abc import Iterator

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

    pad_multiple = 1
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
        try:
            self._device = torch.device(device)
            self._encoder = PooledEncoder(model, PRECISIONS[precision]).to(self._device)
        except (RuntimeError, AssertionError) as error:
            raise SettingsError(
                f"device {device!r} cannot be used ({str(error).splitlines()[0]}); use "
                f"{', '.join(_devices())}"
            ) from error

    def embed(self, batch: TokenBatch, slot: int) -> NDArray[np.float32]:
        """Runs the model; see `Backend.embed`."""
        with torch.inference_mode():
            ids = torch.from_numpy(batch.ids).to(self._device)
            mask = torch.from_numpy(batch.mask).to(self._device)
            vectors: NDArray[np.float32] = self._encoder(ids, mask).cpu().numpy()
        return vectors


def has_cuda() -> bool:
    """Returns whether torch can use a GPU of this machine."""
    return torch.cuda.is_available()


def free_bytes(device: str) -> int:
    """Returns the free memory of a GPU; 0 if it cannot be asked, so that loading says why."""
    try:
        return torch.cuda.mem_get_info(torch.device(device))[0]
    except (RuntimeError, AssertionError, ValueError):
        return 0


def _devices() -> Iterator[str]:
    yield "cpu"
    if has_cuda():
        yield from (f"cuda:{number}" for number in range(torch.cuda.device_count()))
