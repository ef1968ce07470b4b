"""Downloads over HTTP within a total time, however slowly the server answers."""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from email.message import Message
from pathlib import Path
from typing import IO, Any, Final

from index_builder.ingest.codec import public_url
from nearline.errors import InvalidRequest, NotReady

MAX_BYTES: Final = 1 << 30
RETRY_AFTER_S: Final = 5.0
_READ_TIMEOUT_S = 30.0
_BLOCK_BYTES = 1 << 16


class Deadline:
    """The end of the time for one file.

    Args:
        url: Where the file is, for messages.
        limit_s: Seconds from now.
    """

    def __init__(self, url: str, limit_s: float) -> None:
        self._url = url
        self._limit_s = limit_s
        self._end_s = time.monotonic() + limit_s

    @property
    def left_s(self) -> float:
        """Seconds left; 0 if none are."""
        return max(0.0, self._end_s - time.monotonic())

    def check(self) -> None:
        """Raises NotReady if the time is up."""
        if not self.left_s:
            raise NotReady(
                f"{self._url} was not read within {self._limit_s:g} s; find out why its server is "
                "slow, or raise --fetch-s",
                retry_after_s=RETRY_AFTER_S,
            )


def check_size(url: str, size: int) -> None:
    """Raises InvalidRequest if a file is too large."""
    if size > MAX_BYTES:
        raise InvalidRequest(f"{url} has {size} bytes or more; {MAX_BYTES} are allowed: split it")


def save(url: str, blocks: Iterable[bytes], target: Path, deadline: Deadline) -> None:
    """Writes blocks to a file, within the limits of size and time."""
    with target.open("wb") as file:
        for data in blocks:
            file.write(data)
            check_size(url, file.tell())
            deadline.check()


def fetch_http(url: str, target: Path, deadline: Deadline) -> None:
    """Copies the file at an address.

    Raises: InvalidRequest: it is too large, or is somewhere else. NotReady: the time is up.
        OSError, ValueError, HTTPException: the server cannot be reached, refuses, or breaks off.
    """
    shown = public_url(url)
    sockets: list[socket.socket] = []
    opener = urllib.request.build_opener(_NoRedirects, _Connections(sockets))
    # Timeouts of a socket begin anew with each byte; after this one nothing more arrives.
    timer = threading.Timer(deadline.left_s, functools.partial(_cut, sockets))
    timer.daemon = True
    timer.start()
    try:
        timeout_s = min(_READ_TIMEOUT_S, max(deadline.left_s, 0.001))
        with opener.open(url, timeout=timeout_s) as reply:
            check_size(shown, reply.length or 0)
            save(shown, _blocks(reply), target, deadline)
            # Reading by blocks ends silently if the connection does.
            deadline.check()
            if reply.length:
                raise http.client.IncompleteRead(b"", reply.length)
    finally:
        timer.cancel()


def _blocks(reply: http.client.HTTPResponse) -> Iterator[bytes]:
    # read1 returns what has arrived; read would wait for a whole block.
    while data := reply.read1(_BLOCK_BYTES):
        yield data


def _cut(sockets: list[socket.socket]) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


class _Connections(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens URLs, and records the sockets."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        super().__init__()
        self._sockets = sockets

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Opens a URL."""
        return self.do_open(_recording(http.client.HTTPConnection, self._sockets), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Opens a URL."""
        return self.do_open(_recording(http.client.HTTPSConnection, self._sockets), req)


def _recording(kind: Any, sockets: list[socket.socket]) -> Any:
    """Returns a kind of connection that records its socket; the library soon lets go of it."""

    class Recording(kind):  # type: ignore[misc]
        def connect(self) -> None:
            super().connect()
            sockets.append(self.sock)

    return Recording


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
            f"{public_url(req.full_url)} redirects to {public_url(newurl)}; submit that URL "
            "instead, if it is allowed"
        )
