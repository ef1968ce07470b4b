"""Fetches files that workers read by URL, below the prefixes that the operator allows."""

from __future__ import annotations

import errno
import http.client
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from nearline.errors import InvalidRequest, NearlineError, NotFound, NotReady, StoreError
from nearline.store.open import OBJECT_SCHEMES, open_files

MAX_BYTES = 1 << 30
_TIMEOUT_S = 30.0
_RETRY_AFTER_S = 5.0
# Statuses that may soon change, like all statuses from 500 on.
_TRANSIENT_STATUSES = (408, 425, 429)
# A shortage of this machine's resources, not a fault of the file.
_RESOURCE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: an allowed URL may redirect to one that is not allowed."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> None:
        """Raises InvalidRequest."""
        raise InvalidRequest(
            f"{req.full_url} redirects to {newurl}; submit that URL instead, if it is allowed"
        )


def fetch(url: str, allowed: Sequence[str], target: Path) -> None:
    """Copies the file at a URL; blocks, possibly for minutes.

    Args:
        url: Where the file is.
        allowed: Prefixes of allowed URLs.
        target: Path of the copy.
    Raises: InvalidRequest: the file is not allowed, missing or too large. NotReady: its server is
        unavailable, or this machine is out of disk space, memory or file handles.
    """
    if not any(url.startswith(one) for one in allowed):
        raise InvalidRequest(
            f"workers may not read {url}; allowed prefixes (--sources): "
            + (", ".join(allowed) or "none")
        )
    parts = urlsplit(url)
    # Servers decode %2e to a dot.
    if ".." in unquote(parts.path).split("/"):
        raise InvalidRequest(f"{url} contains a .. segment; write the URL without it")
    try:
        if parts.scheme == "file":
            _copy_local(url, allowed, target)
        elif parts.scheme in OBJECT_SCHEMES:
            _copy_object(url, target)
        else:
            _copy_http(url, target)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _error(url, error) from error


def _copy_local(url: str, allowed: Sequence[str], target: Path) -> None:
    path = Path(unquote(urlsplit(url).path)).resolve()
    folders = [Path(unquote(urlsplit(one).path)).resolve() for one in allowed]
    # A link below an allowed folder may lead out of it.
    if not any(path.is_relative_to(one) for one in folders):
        raise InvalidRequest(f"{url} leads to {path}, outside the folders that workers may read")
    _check_size(url, path.stat().st_size)
    shutil.copyfile(path, target)


def _copy_object(url: str, target: Path) -> None:
    folder, _, name = url.rpartition("/")
    try:
        data = open_files(folder).read(name)
    except NotFound as error:
        raise InvalidRequest(f"{url} cannot be read: the object does not exist") from error
    except StoreError as error:
        raise NotReady(error.message, retry_after_s=_RETRY_AFTER_S) from error
    _check_size(url, len(data))
    target.write_bytes(data)


def _copy_http(url: str, target: Path) -> None:
    opener = urllib.request.build_opener(_NoRedirects)
    with opener.open(url, timeout=_TIMEOUT_S) as reply, target.open("wb") as file:
        while data := reply.read(1 << 20):
            file.write(data)
            _check_size(url, file.tell())
        # Reading by blocks ends silently if the connection does.
        if reply.length:
            raise http.client.IncompleteRead(b"", reply.length)


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
        return NotReady(text, retry_after_s=_RETRY_AFTER_S)
    return InvalidRequest(f"{text}; submit a file that exists and that workers may read")


def _check_size(url: str, size: int) -> None:
    if size > MAX_BYTES:
        raise InvalidRequest(f"{url} has more than the {MAX_BYTES} bytes allowed; split it")
