"""Runs a command as a container would: own processes, read-only files, own volumes and host names.

Needs Linux with `unshare`, `setpriv` and `mount` of util-linux 2.39 or newer; root is not needed.
There is no image: the files are those of this machine, and `python` is the running interpreter.
Containers share the network of this machine. Each has a loopback address of its own, so that ports
can be those of the file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from benchmarks.fleet.containers import Container, Mount

_BYTECODE = "/bytecode"
# Homes are private to their users, and no container has them.
_LEFT_OUT = {"/proc", "/tmp", "/root", "/home"}
# Arguments: the root folder, the hosts file, folders of / that are left out, and the command.
_PREAMBLE = """
set -e
root=$1 hosts=$2 left_out=$3
shift 3
mount -t tmpfs -o mode=0755 none "$root"
for entry in /*; do
  case $left_out in *" $entry "*) continue ;; esac
  if [ -L "$entry" ]; then cp -P "$entry" "$root$entry"
  elif [ -d "$entry" ]; then
    mkdir "$root$entry"
    mount --rbind -o ro=recursive "$entry" "$root$entry"
  fi
done
mkdir -p "$root/proc" "$root/tmp"
mount -t proc proc "$root/proc"
mount -t tmpfs none "$root/dev/shm"
mount --bind "$hosts" "$root/etc/hosts"
"""
_MOUNT_FOLDER = """
mkdir -p "$root{path}"
mount --rbind{options} {source} "$root{path}"
"""
_MOUNT_FILE = """
mkdir -p "$root{parent}"
touch "$root{path}"
mount --bind{options} {source} "$root{path}"
"""
_MOUNT_TMPFS = """
mkdir -p "$root{path}"
mount -t tmpfs -o mode=1777 none "$root{path}"
"""
_START = """
mount -o remount,ro "$root"
exec chroot "$root" "$@"
"""
_NO_RIGHTS = ("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all")


@cache
def why_not() -> str:
    """Returns why containers cannot run on this machine; empty if they can."""
    missing = [name for name in ("unshare", "nsenter", "setpriv") if not shutil.which(name)]
    if sys.platform != "linux" or missing:
        return f"containers as processes need Linux with {', '.join(missing) or 'util-linux'}"
    with tempfile.TemporaryDirectory() as folder:
        hosts = Path(folder) / "hosts"
        hosts.touch()
        container = Container(name="probe", words=("true",))
        words = command(container, container.words, Path(folder) / "root", hosts)
        done = subprocess.run(words, check=False, capture_output=True, text=True)
    return done.stderr.strip() and f"containers as processes do not run here: {done.stderr.strip()}"


def environment(container: Container) -> dict[str, str]:
    """Returns the environment of its processes; PATH begins with this interpreter's folder.

    Images bring bytecode. Here processes keep it in a folder that they share; without, each start
    would compile every module.
    """
    folders = (str(Path(sys.executable).parent), "/usr/sbin", "/usr/bin", "/sbin", "/bin")
    return {
        "PATH": os.pathsep.join(folders),
        "HOME": "/tmp",
        **container.environ,
        "PYTHONPYCACHEPREFIX": _BYTECODE,
        "PYTHONDONTWRITEBYTECODE": "",
    }


def command(container: Container, words: Sequence[str], root: Path, hosts: Path) -> list[str]:
    """Returns the command line that starts a container.

    The process is the first one of a process namespace: when it ends, or this process does, so do
    all others in there. Its id is that of the only child of the process that this starts.

    Args:
        container: Its mounts, file systems and user.
        words: The command.
        root: An empty folder, which becomes the root inside; it is made if there is none.
        hosts: File with the names of peers, as /etc/hosts.
    """
    root.mkdir(exist_ok=True)
    bytecode = Path(__file__).resolve().parents[2] / ".cache" / "bytecode"
    if not bytecode.exists():
        # Two processes may start their first containers at once.
        bytecode.mkdir(parents=True, exist_ok=True)
        bytecode.chmod(0o1777)
    own = {**container.mounts, _BYTECODE: Mount(bytecode)}
    script = [_PREAMBLE]
    # Mounts need a place; a folder of this machine with the same name is left out.
    left_out = _LEFT_OUT | {"/" + path.split("/")[1] for path in own}
    for path in container.tmpfs:
        script.append(_MOUNT_TMPFS.format(path=path))
    # A mount hides what was mounted below it: the container's /tmp would hide an interpreter there.
    for path, mount in sorted((*_interpreter(left_out), *own.items())):
        layout = _MOUNT_FILE if mount.source.is_file() else _MOUNT_FOLDER
        script.append(
            layout.format(
                path=path,
                parent=str(Path(path).parent),
                source=f"'{mount.source}'",
                options=" -o ro=recursive" if mount.read_only else "",
            )
        )
    script.append(_START)
    return [
        # Ends with this process, whatever ends it.
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", *_as_root()),
        *("sh", "-c", "".join(script), "sh", str(root), str(hosts)),
        f" {' '.join(sorted(left_out))} ",
        # A change of the user clears what unshare has set.
        *("setpriv", *_user(container), *_NO_RIGHTS, "--pdeathsig", "KILL", "--", *words),
    ]


def command_inside(container: Container, words: Sequence[str], pid: int) -> list[str]:
    """Returns the command line that runs a command in a running container.

    pid: Its first process.
    """
    namespaces = ("--mount", "--pid") if os.getuid() == 0 else ("--user", "--mount", "--pid")
    return [
        *("nsenter", "--target", str(pid), *namespaces, "--root", "--wdns=/"),
        *("setpriv", *_user(container), *_NO_RIGHTS, "--", *words),
    ]


def first_process(pid: int) -> int | None:
    """Returns the id of the first process in a container that was started as `pid`.

    None: there is none yet, or no longer.
    """
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    except OSError:
        return None
    return int(children[0]) if children else None


def _interpreter(left_out: set[str]) -> list[tuple[str, Mount]]:
    """Returns the folders with this interpreter and the code, where they would be left out."""
    checkout = Path(__file__).resolve().parents[2]
    folders = {checkout, Path(sys.prefix), Path(sys.base_prefix)}
    return [
        (str(folder), Mount(folder, True))
        for folder in sorted(folders)
        if any(folder.is_relative_to(top) for top in left_out)
    ]


def _as_root() -> tuple[str, ...]:
    return () if os.getuid() == 0 else ("--map-root-user",)


def _user(container: Container) -> tuple[str, ...]:
    # Another user inside would need ids of this machine that only root may give.
    if not container.user or os.getuid() != 0:
        return ()
    user, _, group = container.user.partition(":")
    return ("--reuid", user, "--regid", group or user, "--clear-groups")
