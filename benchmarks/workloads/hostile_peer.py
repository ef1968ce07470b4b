"""A peer that speaks HTTP/2, and by default reads nothing of what it is sent: its window is 0."""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections import Counter
from typing import Final, Self

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_INITIAL_WINDOW: Final = 4
_FRAME_BYTES: Final = 1 << 14
_CANCEL: Final = 8


class HostilePeer:
    """Sends requests over a connection of its own; replies stay with the server.

    window: Bytes of each reply that it takes. tls: Encrypts the connection. Optional.
    sent: Bytes that it has sent, those of frames included.
    """

    def __init__(self, address: str, window: int = 0, tls: ssl.SSLContext | None = None) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname=host)
        self._stream = -1
        self.sent = len(PREFACE)
        self._socket.sendall(PREFACE)
        self._send(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW, window))
        # Of the connection: else its first 65,535 bytes would be all.
        self._send(_WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def begin(self, path: str, metadata: dict[str, str] | None = None) -> int:
        """Begins a call without sending its request; returns its stream."""
        self._stream += 2
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "test",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        block = b"".join(
            b"\x00" + _text(key) + _text(value)
            for key, value in (headers | (metadata or {})).items()
        )
        self._send(_HEADERS, _END_HEADERS, self._stream, block)
        return self._stream

    def call(self, path: str, request: bytes, metadata: dict[str, str] | None = None) -> None:
        """Sends a request, of at most 16 KiB."""
        stream = self.begin(path, metadata)
        message = b"\x00" + struct.pack(">I", len(request)) + request
        self._send(_DATA, _END_STREAM, stream, message)

    def reset(self, stream: int) -> None:
        """Cancels a call."""
        self._send(_RESET, 0, stream, struct.pack(">I", _CANCEL))

    def upload(
        self,
        path: str,
        request: bytes,
        calls: int = 1,
        encoding: str = "",
        metadata: dict[str, str] | None = None,
        missing: int = 0,
    ) -> None:
        """Sends a request of any size in several calls, as the server takes it, until each is
        answered.

        encoding: Of the request, which is compressed; empty if it is not.
        missing: Bytes that each request announces and never sends; then the first answer is enough.
        """
        named = (metadata or {}) | ({"grpc-encoding": encoding} if encoding else {})
        message = bytes((bool(encoding),)) + struct.pack(">I", len(request) + missing) + request
        left = {self.begin(path, named): memoryview(message) for _ in range(calls)}
        # What the server has granted beyond its initial windows; 0: of the connection.
        granted, initial = Counter({0: (1 << 16) - 1}), (1 << 16) - 1
        with self._socket.makefile("rb") as received:
            while left:
                blocked = True
                for stream, data in left.items():
                    room = min(granted[0], initial + granted[stream], _FRAME_BYTES)
                    if data and room > 0:
                        part, left[stream] = data[:room], data[room:]
                        granted.subtract({0: len(part), stream: len(part)})
                        ends = not left[stream] and not missing
                        self._send(_DATA, _END_STREAM if ends else 0, stream, bytes(part))
                        blocked = False
                if not blocked and not select.select((self._socket,), (), (), 0)[0]:
                    continue
                head = received.read(9)
                payload = received.read(int.from_bytes(head[:3]))
                if not head or head[3] == _GOAWAY:
                    return
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:])
                if kind == _WINDOW_UPDATE:
                    granted[stream] += int.from_bytes(payload)
                elif kind == _PING and not flags & _ACK:
                    self._send(_PING, _ACK, 0, payload)
                elif kind == _SETTINGS and not flags & _ACK:
                    for key, value in struct.iter_unpack(">HI", payload):
                        initial = value if key == _INITIAL_WINDOW else initial
                    self._send(_SETTINGS, _ACK, 0, b"")
                elif kind in (_DATA, _RESET) or flags & _END_STREAM:
                    if left.pop(stream, None) is not None and missing:
                        return

    def settle(self) -> None:
        """Waits until the server has received what was sent."""
        self._send(_PING, 0, 0, bytes(8))
        with self._socket.makefile("rb") as received:
            while True:
                head = received.read(9)
                if not head:
                    raise ConnectionError("the server has closed the connection")
                received.read(int.from_bytes(head[:3]))
                if (head[3], head[4]) == (_PING, _ACK):
                    return

    def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        head = struct.pack(">I", len(payload))[1:] + bytes((kind, flags))
        self._socket.sendall(head + struct.pack(">I", stream) + payload)
        self.sent += len(head) + 4 + len(payload)


def _text(value: str) -> bytes:
    """Returns a string of a header, without Huffman's code."""
    raw = value.encode()
    left = len(raw) - 127
    if left < 0:
        return bytes((len(raw),)) + raw
    size = bytearray((127,))
    while left >= 128:
        size.append(left % 128 + 128)
        left //= 128
    return bytes((*size, left)) + raw
