"""The reader process: `python -m index_builder.readers.sandbox_main LIMITS PARENT`.

It reads one request per line, JSON with the file and how to read it, and replies with frames; see
`frames`. The last frame of a file says why it ended.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from index_builder.documents.bad_rows import DamagedFile, in_order
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.formats import read_file
from index_builder.readers.frames import (
    FRAME_CHARACTERS,
    FRAME_ENTRIES,
    Entry,
    entry_of,
    pack,
)
from nearline.errors import InvalidRequest

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_GARBAGE_OBJECTS = 1_000_000


def main(limits: dict[str, int], parent: int) -> None:
    """Replies until standard input ends."""
    # Ctrl-C reaches the whole group of processes; the one that asks ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _restrict(limits, parent)
    # Rows are many small objects without cycles.
    gc.set_threshold(_GARBAGE_OBJECTS)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        for frame in _frames(request, limits["memory_bytes"]):
            _allow_cpu(request["cpu_s"])
            sys.stdout.buffer.write(pack(frame))
            sys.stdout.buffer.flush()


def _restrict(limits: dict[str, int], parent: int) -> None:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        # Leaves the network, where the kernel allows it. A user other than root needs a namespace
        # of users for that, from which it cannot read the memory of its worker either.
        libc.unshare(_CLONE_NEWNET | (_CLONE_NEWUSER if os.geteuid() else 0))
        # A killed worker takes this process along, whatever it is busy with.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)
    for kind, most in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        # It writes to a pipe only.
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))


def _allow_cpu(seconds: int) -> None:
    """Allows this many seconds of CPU from now; after these the system ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(used.ru_utime + used.ru_stime) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    allowed = spent + seconds if hard == resource.RLIM_INFINITY else min(spent + seconds, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, hard))


def _frames(request: dict[str, Any], memory_bytes: int) -> Iterator[dict[str, object]]:
    _allow_cpu(request["cpu_s"])
    entries: list[Entry] = []
    line = characters = 0
    end: dict[str, object] = {"end": ""}
    read = partial(
        read_file,
        Path(request["path"]),
        request["source"],
        request["document_id"],
        request["title"],
        DocumentColumns(**request["columns"]),
    )
    try:
        for row in in_order(read):
            line = row.location.line
            entry = entry_of(row)
            entries.append(entry)
            characters += len(entry[3]) if len(entry) > 3 else 0
            if len(entries) == FRAME_ENTRIES or characters >= FRAME_CHARACTERS:
                yield {"rows": entries}
                entries, characters = [], 0
    except DamagedFile as error:
        end = {"end": error.message, "line": error.line}
    except InvalidRequest as error:
        end = {"end": error.message, "line": 0, "field": error.field}
    except MemoryError:
        end = {
            "end": f"reading takes more than the {memory_bytes} bytes of memory allowed; split it",
            "line": line + 1,
        }
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}; let this user read it, or omit it"
        end = {"end": reason, "line": line + 1}
    yield {"rows": entries, **end}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]))
