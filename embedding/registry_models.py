"""Fetches models that a setting names as registry:NAME from a store's registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nearline.errors import SettingsError
from nearline.store.registry import PREFIX, Registry
from nearline.store.snapshot import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryModel:
    """A version of the registry with its files.

    name: "NAME@VERSION". folder: Folder of the verified files.
    fingerprint: Fingerprint on the card.
    """

    name: str
    folder: Path
    fingerprint: str


def is_registry_name(name: str) -> bool:
    """Returns whether a setting names a version of the registry."""
    return name.startswith(PREFIX)


def fetch_model(
    name: str, kind: str, *, store: str, cache_folder: Path | None = None
) -> RegistryModel:
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
    return RegistryModel(
        name=f"{ref.name}@{ref.version}", folder=registry.fetch(ref), fingerprint=ref.fingerprint
    )
