"""Folders of what this machine keeps of a store besides its collections."""

from __future__ import annotations

import hashlib
from pathlib import Path

from nearline.store.files import StoreFiles
from nearline.store.local import LocalFiles


def machine_folder(files: StoreFiles, purpose: str) -> Path:
    """Returns the folder of one purpose, such as "redis"; it may not exist yet.

    It is next to the collections of a local store; for an object store, it is in the user's data
    folder, named by the store's URL.
    """
    if isinstance(files, LocalFiles):
        # No collection has a name with a dot.
        return files.folder / f".{purpose}"
    import platformdirs

    digest = hashlib.sha256(files.url.encode()).hexdigest()[:16]
    return Path(platformdirs.user_data_dir("nearline")) / purpose / digest
