"""Peers in networks of their own, each on a cable that can be cut: packets vanish, nobody is told.

For a process that is alone in its network, and root there: `network_namespace.go_apart`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.network_namespace import go_apart

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_MODULE = "tests.network_namespace"


def obstacle() -> str:
    """Returns why this machine cannot have such networks; empty if it can."""
    for name in ("ip", "nsenter"):
        if shutil.which(name, path=_PATH) is None:
            return f"needs the program {name}"
    tried = subprocess.run(
        [sys.executable, "-m", "tests.live.cut_network"], check=False, capture_output=True
    )
    lines = tried.stderr.decode(errors="replace").strip().splitlines()
    return f"no networks of their own: {lines[-1]}" if tried.returncode else ""


@dataclass(frozen=True, slots=True)
class Peer:
    """A network with one address.

    number: 1..250. pid: A process in the network.
    """

    number: int
    pid: int

    @property
    def address(self) -> str:
        """Its address."""
        return f"10.77.{self.number}.2"

    def joining(self, command: Sequence[str]) -> list[str]:
        """Returns the arguments of `python -m` that run a command in the network."""
        return [_MODULE, "join", str(self.pid), *command]

    def connect(self) -> None:
        """Connects its cable."""
        self._ip("link", "set", "eth0", "up")
        # To the other peers.
        self._ip("route", "replace", "default", "via", f"10.77.{self.number}.1")

    def cut(self) -> None:
        """Cuts its cable."""
        self._ip("link", "set", "eth0", "down")

    def _ip(self, *words: str) -> None:
        _run("nsenter", "-t", str(self.pid), "-n", "ip", *words)


@contextlib.contextmanager
def peer(number: int) -> Iterator[Peer]:
    """Makes a network for the length of the block, connected with this process and other peers."""
    holder = subprocess.Popen(
        [sys.executable, "-m", _MODULE, "hold"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"ready\n"
        made, near = Peer(number, holder.pid), f"peer{number}"
        theirs = f"02:00:00:00:02:{number:02x}"
        _run("ip", "link", "add", near, "type", "veth", "peer", "name", "eth0", "address", theirs,
             "netns", str(holder.pid))  # fmt: skip
        _run("ip", "addr", "add", f"10.77.{number}.1/24", "dev", near)
        _run("ip", "link", "set", near, "up")
        # Otherwise this side would notice that nobody answers, and refuse connections at once.
        _run("ip", "neigh", "replace", made.address, "lladdr", theirs, "dev", near, "nud",
             "permanent")  # fmt: skip
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        made._ip("addr", "add", f"{made.address}/24", "dev", "eth0")
        made.connect()
        yield made
    finally:
        holder.kill()
        holder.wait()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, env={**os.environ, "PATH": _PATH})


if __name__ == "__main__":
    go_apart(as_root=True)
    with peer(1):
        pass
