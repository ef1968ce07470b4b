"""Locates and reads the files of a model: in a folder, on the hub, or in a store's registry."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nearline.errors import NotReady, SettingsError
from nearline.store.registry import PREFIX, Registry
from nearline.store.snapshot import Store

# What a loader may read of a model's folder; pickled weights are not among it.
MODEL_FILE_PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def locate_model(name: str, revision: str = "", *, instead: str) -> Path:
    """Finds the folder of a model.

    Args:
        name: A folder, or a hub name (owner/model).
        revision: Commit, tag or branch at the hub; empty means the default branch.
        instead: Alternatives to suggest in the error.
    Raises: SettingsError: the name is neither a folder nor a hub name. NotReady: the hub cannot be
        reached.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.absolute()
    if not _HUB_NAME.fullmatch(name):
        raise SettingsError(
            f"model {name!r} is neither a folder that exists nor a hub name (owner/model); give "
            f"one of the two, or {instead}"
        )
    return _download(name, revision, instead)


def sha256(files: Sequence[Path]) -> str:
    """Returns the SHA-256 of a file or, for several files, the SHA-256 of their SHA-256s."""
    digests: list[str] = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def list_weights(folder: Path) -> list[Path]:
    """Lists the files with a model's weights.

    Raises: SettingsError: there are no such files, or only pickled ones.
    """
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise SettingsError(
            f"folder {folder} has no model.safetensors; pickled weights are not loaded: save the "
            "model again with safe_serialization=True"
        )
    return files


def read_json(file: Path, *, missing_ok: bool = False, maker: str) -> dict[str, object]:
    """Reads a JSON file in a model's folder; it must contain an object.

    Args:
        file: The file.
        missing_ok: Whether to return an empty object if the file is missing.
        maker: The class that writes such folders, for the error.
    Raises: SettingsError: the file is missing, or is not a JSON object.
    """
    try:
        content = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        if missing_ok:
            return {}
        raise SettingsError(
            f"{file} is missing; a sentence-transformers folder is needed ({maker}(…)"
            ".save_pretrained(folder) makes one)"
        ) from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} cannot be read: {error}; download the model again") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{file} is not a JSON object; download the model again")
    return content


def _download(name: str, revision: str, instead: str) -> Path:
    # Only a hub name needs this library.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    chosen = revision or None
    try:
        return Path(
            snapshot_download(
                name,
                revision=chosen,
                allow_patterns=list(MODEL_FILE_PATTERNS),
                local_files_only=True,
            )
        )
    except LocalEntryNotFoundError:
        pass
    except (ValueError, OSError):
        pass  # Not in the hub's cache in a usable form: ask the hub.
    try:
        return Path(
            snapshot_download(name, revision=chosen, allow_patterns=list(MODEL_FILE_PATTERNS))
        )
    # The library raises its own, its HTTP client's and the system's errors.
    except Exception as error:
        raise NotReady(
            f"model {name!r} is not on this machine and the hub did not give it "
            f"({type(error).__name__}); check name and network, set HF_ENDPOINT for a mirror, give "
            f"a folder, or {instead}"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model on disk.

    name: Display name, "NAME@VERSION" if it is from a registry. folder: Folder of its files.
    fingerprint: Hash of everything that affects its results, as on the card if it is from a
    registry; it does not include name and folder.
    """

    name: str
    folder: Path
    fingerprint: str


def is_registry_name(name: str) -> bool:
    """Returns whether a setting names a version of the registry."""
    return name.startswith(PREFIX)


def fetch_model(
    name: str, kind: str, *, store: str, cache_folder: Path | None = None
) -> StoredModel:
    """Fetches the files of a version, each compared with the SHA-256 on its card.

    Args:
        name: registry:NAME (the newest version), registry:NAME@3 or registry:NAME@production.
        kind: "embedder" or "reranker".
        store: The store, a folder or a URL.
        cache_folder: Cache for files of an object store; if None, see `Store.open`.
    Raises: SettingsError: no store. NotFound: no such version, or one without files.
        SnapshotCorrupt: a file differs from the card. StoreError.
    """
    if not store:
        raise SettingsError(
            f"{name} is in a model registry, but no store is set; set --store or "
            "NEARLINE_EMBEDDING_STORE to the store with the registry"
        )
    registry = Registry(Store.open(store, str(cache_folder) if cache_folder else ""))
    ref = registry.resolve(name, kind)
    return StoredModel(
        name=f"{ref.name}@{ref.version}", folder=registry.fetch(ref), fingerprint=ref.fingerprint
    )
