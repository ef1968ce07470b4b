"""Connections of HTTP whose headers are bounded, in size and in time."""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Of the line of the request and its headers. Source: the defaults of nginx and Apache are 32 KiB
# and 8 KiB a line; tokens of identity providers take a few KiB.
MAX_HEADER_BYTES: Final = 64 << 10
# For them to arrive, from the first byte or the beginning of the connection.
HEADER_S: Final = 10.0


class BoundedProtocol(HttpToolsProtocol):
    """A connection that is closed if the headers of a request are too large, or do not come.

    uvicorn bounds neither: a client could hold a connection for ever, or fill the memory.
    """

    _header_bytes = 0
    _in_headers = True
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > MAX_HEADER_BYTES:
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_headers()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._header_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def _await_headers(self) -> None:
        self._in_headers = True
        self._stop_timer()
        self._timer = self.loop.call_later(HEADER_S, self._close_late)

    def _close_late(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
