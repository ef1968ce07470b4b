"""Fetches files that workers read by URL, below the prefixes that the operator allows."""

from __future__ import annotations

import errno
import http.client
import stat
import urllib.error
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from index_builder.ingest.codec import public_url
from index_builder.ingest.http_download import (
    RETRY_AFTER_S,
    Deadline,
    check_size,
    fetch_http,
    save,
)
from nearline.errors import InvalidRequest, NearlineError, NotFound, NotReady, StoreError
from nearline.store.open import OBJECT_SCHEMES, open_files

LIMIT_S = 120.0
_BLOCK_BYTES = 1 << 20
# Statuses that may soon change, like all statuses from 500 on.
_TRANSIENT_STATUSES = (408, 425, 429)
# A shortage of this machine's resources, not a fault of the file.
_RESOURCE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def fetch(url: str, allowed: Sequence[str], target: Path, limit_s: float = LIMIT_S) -> None:
    """Copies the file at a URL; blocks until it is there or the time is up.

    Args:
        url: Where the file is.
        allowed: Prefixes of allowed URLs.
        target: Path of the copy.
        limit_s: Seconds that it may take in all, however the server spreads its answer.
    Raises: InvalidRequest: the file is not allowed, missing or too large. NotReady: its server is
        unavailable or too slow, or this machine is out of disk space, memory or file handles.
    """
    shown = public_url(url)
    if not any(url.startswith(one) for one in allowed):
        raise InvalidRequest(
            f"workers may not read {shown}; allowed prefixes (--sources): "
            + (", ".join(allowed) or "none")
        )
    parts = urlsplit(url)
    # Servers decode %2e to a dot.
    if ".." in unquote(parts.path).split("/"):
        raise InvalidRequest(f"{shown} contains a .. segment; write the URL without it")
    deadline = Deadline(shown, limit_s)
    try:
        if parts.scheme == "file":
            _copy_local(url, allowed, target, deadline)
        elif parts.scheme in OBJECT_SCHEMES:
            _copy_object(url, target, deadline)
        else:
            fetch_http(url, target, deadline)
    except (OSError, ValueError, http.client.HTTPException) as error:
        deadline.check()
        raise _error(shown, error) from error


def _copy_local(url: str, allowed: Sequence[str], target: Path, deadline: Deadline) -> None:
    path = _resolved(url)
    # A link below an allowed folder may lead out of it; a prefix of other schemes allows no folder.
    prefixes = [urlsplit(one) for one in allowed if url.startswith(one)]
    folders = [Path(unquote(one.path)).resolve() for one in prefixes]
    if not any(path.is_relative_to(one) for one in folders):
        raise InvalidRequest(f"{url} leads to {path}, outside the folders that workers may read")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InvalidRequest(f"{url} leads to {path}, which is not a file; submit a file")
    check_size(url, status.st_size)
    with path.open("rb") as source:
        save(url, iter(partial(source.read, _BLOCK_BYTES), b""), target, deadline)


def _resolved(url: str) -> Path:
    """Returns the path that a file:// URL leads to. Raises: InvalidRequest: a link that loops."""
    try:
        return Path(unquote(urlsplit(url).path)).resolve()
    except RuntimeError as error:
        # Python before 3.13 names a loop of links this way.
        raise InvalidRequest(f"{url} is a link that leads back to itself; submit a file") from error


def _copy_object(url: str, target: Path, deadline: Deadline) -> None:
    folder, _, name = url.rpartition("/")
    try:
        files = open_files(folder)
        size = files.size(name)
        check_size(url, size)
        save(url, files.blocks(name, size), target, deadline)
    except NotFound as error:
        raise InvalidRequest(f"{url} cannot be read: the object does not exist") from error
    except StoreError as error:
        raise NotReady(error.message, retry_after_s=RETRY_AFTER_S) from error


def _error(url: str, error: Exception) -> NearlineError:
    if isinstance(error, urllib.error.HTTPError):
        text = f"{url}: {error.code} {error.reason}"
        # Closing it releases the connection.
        error.close()
        transient = error.code in _TRANSIENT_STATUSES or error.code >= 500
    else:
        words = (getattr(error, name, None) for name in ("reason", "strerror"))
        text = f"{url}: {next(filter(None, words), error)}"
        transient = (
            isinstance(error, urllib.error.URLError | TimeoutError | ConnectionError)
            or (
                isinstance(error, http.client.HTTPException)
                and not isinstance(error, http.client.InvalidURL)
            )
            or getattr(error, "errno", None) in _RESOURCE_ERRORS
        )
    if transient:
        return NotReady(text, retry_after_s=RETRY_AFTER_S)
    return InvalidRequest(f"{text}; submit a file that exists and that workers may read")
