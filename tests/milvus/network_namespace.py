"""Runs a command in a network of its own, with nothing but a loopback device.

Milvus 2.3.5 listens on all addresses and cannot be told otherwise; in there, nobody else is. Where
the system allows no such network the command runs as it is, and that is said.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

# Source: <linux/sched.h>, <linux/sockios.h>, <linux/if.h>.
_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1
NAMED = "NEARLINE_TEST_MILVUS"


def go_apart() -> None:
    """Moves this process, which must have one thread, into a network of its own.

    Raises: OSError: the system does not allow it.
    """
    user, group = os.getuid(), os.getgid()
    if user == 0:
        _unshare(_NEW_NET)
    else:
        _unshare(_NEW_USER | _NEW_NET)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = struct.pack("16sh14x", b"lo", 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(control, _GET_FLAGS, asked))
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sh14x", b"lo", flags | _UP))


def is_allowed() -> bool:
    """Returns whether the system lets a process have a network of its own."""
    command = [
        sys.executable,
        "-c",
        "from tests.milvus import network_namespace as n; n.go_apart()",
    ]
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0


def _unshare(what: int) -> None:
    unshare = getattr(ctypes.CDLL(None, use_errno=True), "unshare", None)
    if unshare is None:
        raise OSError("this system has no network namespaces")
    if unshare(what) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def main(command: list[str]) -> None:
    """Replaces this process with a command in a network of its own."""
    if not os.environ.get(NAMED):
        try:
            go_apart()
        except OSError as error:
            print(
                f"no network of their own for the tests ({error}): Milvus 2.3.5 listens on all "
                "addresses of this machine while they run",
                file=sys.stderr,
                flush=True,
            )
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
