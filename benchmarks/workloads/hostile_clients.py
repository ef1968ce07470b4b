"""Clients that hold connections, read nothing, or cancel what they ask for."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple

from benchmarks.workloads.call_prober import HEALTH
from benchmarks.workloads.hostile_peer import PREFACE, HostilePeer

_WATCH: Final = "/grpc.health.v1.Health/Watch"
_REFLECTION: Final = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
# Asks for the files that define a service: tens of KB.
_FILES: Final = b"\x22\x1cnearline.v1.RetrievalService"
_CONNECTIONS, _PIPELINED = 64, 60
# Calls of each kind on a connection, and seconds between connections: they are held, and no flood.
_HELD_CALLS, _PAUSE_S = 20, 0.05
_RECEIVED_BYTES = 2_048
# In which an attack opens its connections.
_BEGIN_S = 2.0
# The begin of a TLS record that holds a ClientHello of 512 bytes.
_HALF_HELLO: Final = bytes.fromhex("160301020001 0001fc0303") + bytes(100)


class AttackedPort(NamedTuple):
    """A port under attack.

    path: Of HTTP/1.1, with a large reply; empty: the port speaks HTTP/2. tls: Encrypts
    connections; None: they are plain. sockets: Idle connections. every_s: Seconds between two bytes
    of a slow client. held: Closes the connections. ended: Set at the end.
    """

    address: str
    path: str
    tls: ssl.SSLContext | None
    sockets: int
    every_s: float
    held: ExitStack
    ended: threading.Event

    def connect(self, *, encrypted: bool = True) -> socket.socket:
        """Opens a connection with a small buffer for what is received."""
        host, _, port = self.address.rpartition(":")
        one = self.held.enter_context(socket.socket())
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVED_BYTES)
        one.settimeout(2)
        one.connect((host, int(port)))
        if encrypted and self.tls is not None:
            one = self.held.enter_context(self.tls.wrap_socket(one, server_hostname=host))
        return one

    def peer(self, window: int = 0) -> HostilePeer:
        """Opens a connection of HTTP/2."""
        return self.held.enter_context(HostilePeer(self.address, window, self.tls))

    def head(self, verb: str = "GET") -> bytes:
        """Returns the head of a request of HTTP/1.1."""
        size = "content-length: 9000\r\n" if verb == "POST" else ""
        return f"{verb} {self.path} HTTP/1.1\r\nhost: x\r\n{size}\r\n".encode()


def _never_reads(target: AttackedPort, window: int = 1 << 30) -> None:
    for _ in range(_CONNECTIONS):
        if target.ended.is_set():
            return
        # The server may close it.
        with contextlib.suppress(OSError):
            if target.path:
                target.connect().sendall(target.head() * _PIPELINED)
                continue
            peer = target.peer(window)
            for path, request in ((HEALTH, b""), (_WATCH, b""), (_REFLECTION, _FILES)):
                for _ in range(_HELD_CALLS):
                    peer.call(path, request)
        target.ended.wait(_PAUSE_S)


def _byte_by_byte(target: AttackedPort) -> None:
    texts = [target.head(), target.head("POST")] if target.path else [PREFACE]
    opened: list[tuple[socket.socket, bytes]] = []
    for text in texts * _CONNECTIONS:
        with contextlib.suppress(OSError):
            one = target.connect()
            # The second kind has a body that drips.
            one.sendall(text if text in texts[1:] else text[:1])
            opened.append((one, text))
    for at in itertools.count(1):
        for one, text in opened:
            # The server may have closed it.
            with contextlib.suppress(OSError):
                one.sendall(b"x" if text in texts[1:] else text[at : at + 1])
        if target.ended.wait(target.every_s):
            return


def _resets(target: AttackedPort) -> None:
    while not target.ended.is_set():
        with contextlib.suppress(OSError), ExitStack() as held:
            once = target._replace(held=held)
            if target.path:
                one = once.connect()
                one.sendall(target.head())
                # Its end is a reset instead of a farewell.
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                continue
            peer = once.peer()
            while not target.ended.is_set():
                peer.reset(peer.begin(HEALTH))


def _sockets(target: AttackedPort) -> None:
    for _ in range(target.sockets):
        if target.ended.is_set():
            return
        with contextlib.suppress(OSError):
            target.connect(encrypted=False)


def _half_handshakes(target: AttackedPort) -> None:
    for _ in range(target.sockets // 10):
        if target.ended.is_set():
            return
        with contextlib.suppress(OSError):
            target.connect(encrypted=False).sendall(_HALF_HELLO)


# HTTP/1.1 has no window but that of its socket, so its first two are the same.
ATTACKS: Final[Mapping[str, Callable[[AttackedPort], None]]] = MappingProxyType(
    {
        "window 0": partial(_never_reads, window=0),
        "never reads": _never_reads,
        "byte by byte": _byte_by_byte,
        "resets": _resets,
        "sockets": _sockets,
        "half handshakes": _half_handshakes,
    }
)


def check(target: AttackedPort) -> None:
    """Raises OSError if a port does not speak what its attackers do, so that they do no harm."""
    with ExitStack() as held:
        once = target._replace(held=held)
        once.connect() if target.path else once.peer().settle()


@contextlib.contextmanager
def under_attack(name: str, target: AttackedPort) -> Iterator[None]:
    """Attacks a port for the duration of the block, from when the connections are open."""
    with ExitStack() as held:
        begun = target._replace(held=held, ended=threading.Event())
        thread = threading.Thread(target=ATTACKS[name], args=(begun,), daemon=True)
        thread.start()
        # An attack that ends by itself holds what it has opened.
        thread.join(_BEGIN_S)
        try:
            yield
        finally:
            begun.ended.set()
            thread.join()
