"""Finds a cross-encoder's folder and reads its description, without importing torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from embedding.model_files import (
    MODEL_FILE_PATTERNS,
    StoredModel,
    fetch_model,
    is_registry_name,
    locate_model,
    read_json,
    sha256,
)
from nearline.errors import SettingsError

# Loaded as a cross-encoder, another kind of model gets a last layer of random numbers.
_ARCHITECTURES = ("ForSequenceClassification", "ForCausalLM")


def find_pair_model(
    name: str, setting: str, *, store: str = "", cache_folder: Path | None = None
) -> StoredModel:
    """Finds a cross-encoder and reads it.

    Args:
        name: A folder, a hub name, or `registry:NAME`, see `fetch_model`.
        setting: Name of the setting that holds `name`, for errors.
        store, cache_folder: See `fetch_model`.
    Raises: SettingsError: the model does not exist, or is of a different kind. NotReady: the hub
        cannot be reached. Also what `fetch_model` raises.
    """
    if is_registry_name(name):
        found = fetch_model(name, "reranker", store=store, cache_folder=cache_folder)
        name, folder = found.name, found.folder
    else:
        folder = locate_model(name, instead=f"leave the setting {setting} empty to serve without")
    config = read_json(folder / "config.json", maker="CrossEncoder")
    own = read_json(
        folder / "config_sentence_transformers.json", missing_ok=True, maker="CrossEncoder"
    )
    architectures = config.get("architectures")
    kinds = list(map(str, architectures)) if isinstance(architectures, list) else []
    if own.get("model_type") != "CrossEncoder" and not any(
        kind.endswith(_ARCHITECTURES) for kind in kinds
    ):
        raise SettingsError(
            f"{setting} {folder} is no cross-encoder: its architecture is "
            f"{', '.join(kinds) or 'not given'}, one that ends in {' or '.join(_ARCHITECTURES)} is "
            "needed; choose a model that CrossEncoder(…).save_pretrained(folder) wrote"
        )
    files = _files(folder)
    if not any(file.suffix == ".safetensors" for file in files):
        raise SettingsError(
            f"{setting} {folder} has no model.safetensors; pickled weights are not loaded: save "
            "the model again with safe_serialization=True"
        )
    facts = {str(file.relative_to(folder)): sha256([file]) for file in files}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    return StoredModel(name=name, folder=folder, fingerprint=digest.hexdigest()[:32])


def _files(folder: Path) -> list[Path]:
    """Lists the files that the loader may read: those of the folder and of its modules."""
    folders = {folder}
    try:
        modules = json.loads((folder / "modules.json").read_text("utf-8"))
        folders |= {folder / str(module["path"]) for module in modules}
    except FileNotFoundError:
        pass  # A plain transformers folder.
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{folder / 'modules.json'} cannot be read ({type(error).__name__}); download the "
            "model again"
        ) from error
    return sorted(
        {file for one in folders for pattern in MODEL_FILE_PATTERNS for file in one.glob(pattern)}
    )
