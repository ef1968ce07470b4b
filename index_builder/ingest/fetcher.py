"""Files that workers read where they lie: those below the addresses that the operator allows."""

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
# What a server says that may say something else a little later; so may all from 500 on.
_LATER = (408, 425, 429)
# What this machine is short of is no fault of the file.
_SHORT_OF = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows nothing: an address that is allowed may point at one that is not."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> None:
        """Refuses."""
        raise InvalidRequest(
            f"{req.full_url} points at {newurl}; submit that one, if it is allowed"
        )


def fetch(url: str, allowed: Sequence[str], target: Path) -> None:
    """Copies the file at an address; blocks, at most for minutes.

    Args:
        url: The address.
        allowed: What addresses must begin with.
        target: Where the copy goes.
    Raises: InvalidRequest: it is not allowed, not there or too large. NotReady: its server is away,
            or this machine has no room for it.
    """
    if not any(url.startswith(one) for one in allowed):
        raise InvalidRequest(
            f"workers may not read {url}; the operator allows addresses with --sources, "
            + (", ".join(allowed) if allowed else "and allows none")
        )
    parts = urlsplit(url)
    # Servers read %2e as a point.
    if ".." in unquote(parts.path).split("/"):
        raise InvalidRequest(f"{url} goes back up with ..; write the address without")
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
    # A link below an allowed folder may lead out of all of them.
    if not any(path.is_relative_to(one) for one in folders):
        raise InvalidRequest(f"{url} leads out of what workers may read, to {path}")
    _check_size(url, path.stat().st_size)
    shutil.copyfile(path, target)


def _copy_object(url: str, target: Path) -> None:
    folder, _, name = url.rpartition("/")
    try:
        data = open_files(folder).read(name)
    except NotFound as error:
        raise InvalidRequest(f"{url} cannot be read: there is no such object") from error
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
        # Reading by blocks ends without a word where the connection does.
        if reply.length:
            raise http.client.IncompleteRead(b"", reply.length)


def _error(url: str, error: Exception) -> NearlineError:
    if isinstance(error, urllib.error.HTTPError):
        text = f"{url}: {error.code} {error.reason}"
        # It holds the connection.
        error.close()
        later = error.code in _LATER or error.code >= 500
    else:
        words = (getattr(error, name, None) for name in ("reason", "strerror"))
        text = f"{url}: {next(filter(None, words), error)}"
        later = (
            isinstance(error, urllib.error.URLError | TimeoutError | ConnectionError)
            or (
                isinstance(error, http.client.HTTPException)
                and not isinstance(error, http.client.InvalidURL)
            )
            or getattr(error, "errno", None) in _SHORT_OF
        )
    if later:
        return NotReady(text, retry_after_s=_RETRY_AFTER_S)
    return InvalidRequest(f"{text}; name a file that is there, and that workers may read")


def _check_size(url: str, size: int) -> None:
    if size > MAX_BYTES:
        raise InvalidRequest(f"{url} has more than the {MAX_BYTES} bytes allowed; cut it in parts")
