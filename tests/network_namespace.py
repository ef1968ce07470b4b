"""Networks of their own for processes: nothing in there but a loopback device.

python -m tests.network_namespace hold              keeps a new network until its input ends
python -m tests.network_namespace join PID COMMAND  runs a command in the network of a process
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

# Source: <linux/sched.h>, <linux/sockios.h>, <linux/if.h>, <linux/prctl.h>.
_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1
_SIGNAL_OF_PARENTS_DEATH = 1


def go_apart(*, as_root: bool = False) -> None:
    """Moves this process, which must have one thread, into a network of its own.

    Args:
        as_root: It runs as user 0 of a user namespace, so that the programs that it starts may
            change the network; otherwise as the user that it was.
    Raises: OSError: the system does not allow it.
    """
    user, group = os.getuid(), os.getgid()
    if user == 0:
        _call("unshare", _NEW_NET)
    else:
        _call("unshare", _NEW_USER | _NEW_NET)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{0 if as_root else user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{0 if as_root else group} {group} 1")
    _start_loopback()


def is_allowed() -> bool:
    """Returns whether the system lets a process have a network of its own."""
    command = [
        sys.executable,
        "-c",
        "from tests import network_namespace as n; n.go_apart(as_root=True)",
    ]
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0


def _hold() -> None:
    _call("unshare", _NEW_NET)
    _start_loopback()
    print("ready", flush=True)
    sys.stdin.read()


def _join(pid: int, command: list[str]) -> None:
    """Replaces this process, which ends with its parent, with a command in another network."""
    _call("prctl", _SIGNAL_OF_PARENTS_DEATH, signal.SIGKILL)
    with Path(f"/proc/{pid}/ns/net").open() as network:
        _call("setns", network.fileno(), _NEW_NET)
    os.execvp(command[0], command)


def _start_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = struct.pack("16sh14x", b"lo", 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(control, _GET_FLAGS, asked))
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sh14x", b"lo", flags | _UP))


def _call(name: str, *arguments: int) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        raise OSError("this system has no network namespaces")
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["hold"]:
            _hold()
        case ["join", pid, *command]:
            _join(int(pid), command)
        case _:
            sys.exit(__doc__)
