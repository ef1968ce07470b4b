"""Opens the storage backend that --store names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from nearline.errors import StoreError
from nearline.store.files import StoreFiles
from nearline.store.local import LocalFiles
from nearline.tls import is_loopback

OBJECT_SCHEMES = ("s3", "gs", "az")
# Variables that set the endpoint of an object store. As in the library, the first one set wins.
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": (),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_INSTALL = 'pip install "nearline-server[objectstore]"'
# The library's defaults are ten retries within three minutes. A serving process keeps its data
# meanwhile; a starting process should fail sooner.
_RETRY_S = 20
_RETRIES = 4


def open_files(url: str, cache_dir: str = "") -> StoreFiles:
    """Opens the files of a store; see `Store.open`."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        folder = Path(rest if separator else url).expanduser().absolute()
        if folder.is_file():
            raise StoreError(f"store {folder} is a file; name the folder of the snapshots")
        return LocalFiles(folder)
    if scheme not in OBJECT_SCHEMES:
        raise StoreError(
            f"store {url!r} has the unsupported scheme {scheme!r}; use a folder, file://, "
            + ", ".join(f"{one}://" for one in OBJECT_SCHEMES)
        )
    url = url.rstrip("/")
    if not urlsplit(url).netloc:
        raise StoreError(f"store {url!r} names no bucket; write {scheme}://bucket/prefix")
    return _open_objects(url, scheme, cache_dir, os.environ)


def _open_objects(url: str, scheme: str, cache_dir: str, environ: Mapping[str, str]) -> StoreFiles:
    plain = _plain_http(scheme, environ)
    try:
        import platformdirs
        from obstore.store import from_url

        from nearline.store.objects import ObjectFiles
    except ImportError as error:
        raise StoreError(
            f"store {url!r} needs a library that is not installed ({error.name}): {_INSTALL}"
        ) from error
    chosen = cache_dir or environ.get("NEARLINE_CACHE_DIR", "")
    cache = Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("nearline"))
    try:
        # The library reads credentials, region and endpoint from the environment itself.
        store = from_url(
            url,
            client_options={"allow_http": plain, "connect_timeout": "5s", "timeout": "60s"},
            retry_config={
                "max_retries": _RETRIES,
                "retry_timeout": timedelta(seconds=_RETRY_S),
            },
        )
    except Exception as error:  # The library raises its own classes, ValueError and TypeError.
        details = " ".join(str(error).split())
        raise StoreError(f"store {url!r} cannot be opened: {details}; check the URL") from error
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    return ObjectFiles(store, url, cache.absolute() / "store" / digest)


def _plain_http(scheme: str, environ: Mapping[str, str]) -> bool:
    """Returns whether requests are unencrypted, which only loopback endpoints allow."""
    for name in _ENDPOINTS[scheme]:
        endpoint = urlsplit(environ.get(name, ""))
        if endpoint.scheme != "http":
            continue
        if not is_loopback(endpoint.hostname or ""):
            raise StoreError(
                f"{name} is {environ[name]!r}: credentials and data would travel unencrypted; use "
                "https://, or a server on a loopback address"
            )
        return True
    return False
