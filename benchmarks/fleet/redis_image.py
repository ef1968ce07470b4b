"""The programs of Redis images, which this machine need not have installed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from nearline_cli.local.bundled_redis import find_program

_SERVERS = ("valkey-server", "redis-server")
_CLIENTS = ("valkey-cli", "redis-cli")
# Sends a command; an error as the reply, or none in time, is exit code 1.
_CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], 6379), timeout=3) as connection:
    connection.sendall(" ".join(sys.argv[2:]).encode() + b"\\r\\n")
    reply = connection.recv(4096).decode()
print(reply.strip())
sys.exit(reply.startswith("-"))
"""


def localized(words: Sequence[str], address: str) -> tuple[str, ...]:
    """Returns a command of a Redis image for this machine; any other command is unchanged.

    A server without --bind listens everywhere, which here would be the addresses of others, too.
    """
    if not words:
        return ()
    program, *rest = words
    if program in _SERVERS:
        return (str(find_program()), *rest, "--bind", address)
    if program in _CLIENTS:
        if found := shutil.which(program):
            return (found, "-h", address, *rest)
        return ("python", "-I", "-S", "-c", _CLIENT, address, *rest)
    return tuple(words)
