"""Opens what a --store names."""

from __future__ import annotations

from pathlib import Path

from nearline.errors import StoreError
from nearline.store.files import StoreFiles
from nearline.store.local import LocalFiles

OBJECT_SCHEMES = ("s3", "gs", "az")


def open_files(url: str, cache_dir: str = "") -> StoreFiles:
    """Opens the files of a store; see `Store.open`."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        return LocalFiles(Path(rest if separator else url).expanduser().absolute())
    raise StoreError(f"store {url!r} has scheme {scheme!r}; only a folder or file:// is served")
