"""Embedding models that a command names as MODEL[:DIMENSIONS]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nearline.errors import SettingsError
from nearline.registry import PREFIX

_MOST = 65_536
# Settings of the service that are about its own model, or of what one service is enough for.
_OF_ANOTHER = ("MODEL_SHA256", "MODEL_REVISION")
_ONCE = ("RERANKER", "ENTAILMENT")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model to serve.

    name: As the setting `model` has it. dimensions: Numbers kept of each vector; 0: all.
    environ: Variables that its service has of its own.
    """

    name: str
    dimensions: int = 0
    environ: Mapping[str, str] = field(default_factory=dict)


def parse_model(text: str) -> ModelSpec:
    """Reads MODEL[:DIMENSIONS], for example all-MiniLM-L6-v2:128.

    Raises: SettingsError: no model, or dimensions out of range.
    """
    name, colon, number = text.rpartition(":")
    if not (colon and number.isdecimal()) or f"{name}:" == PREFIX:
        name, number = text, "0"
    elif not 1 <= int(number) <= _MOST:
        raise SettingsError(
            f"--also-embedding {text}: dimensions are {number}; 1..{_MOST} are allowed"
        )
    if not name or name == PREFIX:
        raise SettingsError(
            f"--also-embedding {text!r} names no model; write MODEL or MODEL:DIMENSIONS"
        )
    unset = _ONCE if name == _configured() else (*_ONCE, *_OF_ANOTHER)
    return ModelSpec(
        name=name,
        dimensions=int(number),
        environ={f"NEARLINE_EMBEDDING_{one}": "" for one in unset},
    )


def _configured() -> str:
    """Returns the model of the embedding service that is started in any case."""
    from embedding.settings import EmbeddingSettings
    from nearline.settings import load_from_process

    return load_from_process(EmbeddingSettings, ()).model
