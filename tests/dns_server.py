"""A DNS server for tests: the addresses of one name, as of a headless Service of Kubernetes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import cast

_A, _IN, _RESPONSE = 1, 1, 0x8180


class NameServer(asyncio.DatagramProtocol):
    """Answers every query of type A with `addresses`, which a test may change.

    address: "127.0.0.1:PORT" of the server.
    """

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self.address = ""
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self.address = "{}:{}".format(*transport.get_extra_info("sockname")[:2])

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        # The question: names end with an empty label; its type and class follow.
        end = data.index(b"\0", 12) + 5
        question = data[12:end]
        (kind,) = struct.unpack("!H", question[-4:-2])
        found = self.addresses if kind == _A else []
        answers = b"".join(
            # 0xc00c: the name of the question. Nothing is kept: the time to live is 0.
            struct.pack("!HHHIH", 0xC00C, _A, _IN, 0, 4) + socket.inet_aton(one)
            for one in found
        )
        header = data[:2] + struct.pack("!HHHHH", _RESPONSE, 1, len(found), 0, 0)
        self._transport.sendto(header + question + answers, addr)


@contextlib.asynccontextmanager
async def name_server(addresses: list[str]) -> AsyncIterator[NameServer]:
    """Runs a name server for the duration of the block."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        lambda: NameServer(addresses), ("127.0.0.1", 0)
    )
    try:
        yield server
    finally:
        transport.close()
