"""Embedding models that a command names as MODEL[:DIMENSIONS]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nearline.errors import SettingsError
from nearline.store.registry import PREFIX

_MAX_DIMENSIONS = 65_536
# Settings that apply only to the configured model, and to a single service.
_OF_CONFIGURED_MODEL = ("MODEL_SHA256", "MODEL_REVISION")
_OF_ONE_SERVICE = ("RERANKER", "ENTAILMENT")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model to serve.

    name: As in the setting `model`. dimensions: Number of components kept of each vector; 0 keeps
        all. environ: Environment variables of its service.
    """

    name: str
    dimensions: int = 0
    environ: Mapping[str, str] = field(default_factory=dict)


def parse_model(text: str) -> ModelSpec:
    """Parses MODEL[:DIMENSIONS], for example all-MiniLM-L6-v2:128.

    Raises:
        SettingsError: The model is missing, or the dimensions are out of range.
    """
    name, colon, number = text.rpartition(":")
    if not (colon and number.isdecimal()) or f"{name}:" == PREFIX:
        name, number = text, "0"
    elif not 1 <= int(number) <= _MAX_DIMENSIONS:
        raise SettingsError(
            f"--also-embedding {text}: dimensions are {number}; 1..{_MAX_DIMENSIONS} are allowed"
        )
    if not name or name == PREFIX:
        raise SettingsError(
            f"--also-embedding {text!r} names no model; write MODEL or MODEL:DIMENSIONS"
        )
    unset = (
        _OF_ONE_SERVICE
        if name == _configured_model()
        else (*_OF_ONE_SERVICE, *_OF_CONFIGURED_MODEL)
    )
    return ModelSpec(
        name=name,
        dimensions=int(number),
        environ={f"NEARLINE_EMBEDDING_{name}": "" for name in unset},
    )


def _configured_model() -> str:
    """Returns the model of the embedding service that is always started."""
    from embedding.settings import EmbeddingSettings
    from nearline.settings import load_from_process

    return load_from_process(EmbeddingSettings, ()).model
