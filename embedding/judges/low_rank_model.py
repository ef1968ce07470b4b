"""A change of low rank of the default model, as torch learns it.

This needs torch and transformers (pip install 'nearline-server[torch]').
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import nn
from transformers import BertModel
from transformers.utils import logging as transformers_logging

from embedding.model import DEFAULT_MODEL

Change: TypeAlias = Mapping[str, NDArray[np.floating[Any]]]

_PARTS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attended": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}
_NORMS = {"attended_norm": "attention.output.LayerNorm", "norm": "output.LayerNorm"}
# Layers below this keep their weights, unless a model says otherwise.
_FROZEN_LAYERS = 2


class LowRank(nn.Module):
    """A linear part, and a change of it that is learned."""

    def __init__(self, part: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.part = part.to(torch.bfloat16)
        self.scale = scale
        self.down = nn.Parameter(torch.randn(rank, part.in_features) / math.sqrt(part.in_features))
        self.up = nn.Parameter(torch.zeros(part.out_features, rank))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Returns the changed output."""
        # One product of the changed weights takes less time than three, two of them narrow.
        change = (self.up @ self.down * self.scale).to(torch.bfloat16)
        return nn.functional.linear(states, self.part.weight + change, self.part.bias)


class LowRankModel(nn.Module):
    """The default model with a change that is learned, and a head over its first token.

    Args:
        folder: Folder of the default model.
        outputs: Outputs of the head.
        rank: Of the change of each linear part.
        scale: What the change is multiplied by; a higher one is learned faster.
        frozen_layers: Number of lower layers that are not changed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        outputs: int,
        rank: int,
        scale: float = 1.0,
        frozen_layers: int = _FROZEN_LAYERS,
    ) -> None:
        super().__init__()
        self._frozen_layers = frozen_layers
        # It lists the unused head of the model, and draws a bar for a tenth of a second.
        transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        # On a CPU, training of short texts in bf16 takes half the time with plain attention.
        self.bert = BertModel.from_pretrained(
            folder, add_pooling_layer=False, attn_implementation="eager"
        )
        self.bert.requires_grad_(False)
        for layer in self._layers().values():
            for path in _PARTS.values():
                where, _, name = path.rpartition(".")
                part = cast("nn.Linear", layer.get_submodule(path))
                setattr(layer.get_submodule(where), name, LowRank(part, rank, scale))
            for path in _NORMS.values():
                layer.get_submodule(path).requires_grad_(True)
        self.head = nn.Linear(self.bert.config.hidden_size, outputs)

    def forward(self, pairs: Sequence[NDArray[np.int64]]) -> torch.Tensor:
        """Returns the logits of n token id arrays, (n, outputs)."""
        ids = nn.utils.rnn.pad_sequence([torch.from_numpy(one) for one in pairs], batch_first=True)
        with torch.autocast("cpu", torch.bfloat16):
            states = self.bert(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
        logits: torch.Tensor = self.head(states[:, 0].float())
        return logits

    def change(self) -> dict[str, NDArray[np.floating[Any]]]:
        """Returns what was learned, as `embedding.judges.low_rank` reads it."""
        found = {f"head.{name}": part for name, part in self.head.state_dict().items()}
        found |= {name: (part * scale).half() for name, part, scale in self._named()}
        return {name: part.detach().numpy() for name, part in found.items()}

    def start(self, change: Change) -> None:
        """Continues from a change of the same rank and outputs.

        Raises: KeyError: the change lacks a part.
        """
        parts = [(f"head.{name}", part, 1.0) for name, part in self.head.named_parameters()]
        for name, part, scale in (*parts, *self._named()):
            part.data.copy_(torch.from_numpy(np.array(change[name], np.float32)) / scale)

    def _layers(self) -> dict[int, nn.Module]:
        """Returns the layers that are changed, by number."""
        return dict(list(enumerate(self.bert.encoder.layer))[self._frozen_layers :])

    def _named(self) -> Iterator[tuple[str, nn.Parameter, float]]:
        """Yields the learned parts with their names and scales."""
        for number, layer in self._layers().items():
            for name, path in _PARTS.items():
                part = cast("LowRank", layer.get_submodule(path))
                yield f"{number}.{name}.down", part.down, 1.0
                yield f"{number}.{name}.up", part.up, part.scale
            for name, path in _NORMS.items():
                norm = cast("nn.LayerNorm", layer.get_submodule(path))
                yield f"{number}.{name}.scale", norm.weight, 1.0
                yield f"{number}.{name}.shift", norm.bias, 1.0


def save_change(change: Change, out: Path, learned_from: str) -> None:
    """Writes a change of the default model; an existing file is replaced.

    Args:
        learned_from: Names the training data.
    """
    save_file(dict(change), out, metadata={"learned_from": learned_from, "base": DEFAULT_MODEL})
