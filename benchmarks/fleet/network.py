"""Addresses and host names of a fleet, which shares the network of this machine."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from pathlib import Path

from nearline.errors import NotReady

# Each fleet has a network 127.A.B.0; 127.0 is the machine's own.
_SECOND, _THIRD = range(20, 250), range(256)
_MOST = 254


class Addresses:
    """Hands out the loopback addresses of one fleet, each once."""

    def __init__(self) -> None:
        # Not the shared generator: tests seed it, and neighbours would draw the same network.
        draw = random.SystemRandom()
        self._network = f"127.{draw.choice(_SECOND)}.{draw.choice(_THIRD)}"
        self._numbers = itertools.count(1)

    def take(self) -> str:
        """Returns an address that no container had. Raises: NotReady: there is none left."""
        number = next(self._numbers)
        if number > _MOST:
            raise NotReady(f"a fleet has {_MOST} addresses, and all were used; start another one")
        return f"{self._network}.{number}"


def write_hosts(file: Path, names: Iterable[tuple[str, str]]) -> None:
    """Writes the hosts file of a fleet from addresses with their names.

    It is written in place, since containers have this very file.
    """
    lines = ["127.0.0.1 localhost", *(f"{address} {name}" for address, name in names)]
    with file.open("r+", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")
        stream.truncate()
