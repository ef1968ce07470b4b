"""Upkeep in a separate process that is hindered: HINDRANCE, then arguments of upkeep.

"writing": it never ends writing the items of a snapshot, in a thread. "gate": the release gate
never answers. "promotion": nor does the promotion. "panic": the promotion fails as code in Rust
does, by what is no Exception. "little space", "more space": until somebody raises the soft limit,
no file may get as large as the vectors of a build, or as an index of 301 vectors of 64 numbers; a
failed build is repeated at once.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import threading

from index_builder import maintenance
from index_builder.pipeline import snapshot_writer
from index_builder.releases import failed_builds, upkeep_builds
from nearline import serving

_SPACE = {"little space": 40_000, "more space": 77_075}


def _stall(*_: object) -> None:
    print("stalled", flush=True)
    threading.Event().wait()


def _panic(*_: object) -> None:
    raise BaseException("panic")


def _stall_gate(force_because: str) -> object:
    async def check(*_: object) -> None:
        print("stalled", flush=True)
        await asyncio.get_running_loop().create_future()

    return check


def _hinder(hindrance: str) -> None:
    match hindrance:
        case "writing":
            vars(snapshot_writer)["write_items"] = _stall
        case "gate":
            vars(upkeep_builds)["gate_of_build"] = _stall_gate
        case "promotion":
            vars(upkeep_builds)["promote"] = _stall
        case "panic":
            vars(upkeep_builds)["promote"] = _panic
        case "little space" | "more space":
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (_SPACE[hindrance], hard))
            vars(failed_builds)["_FAILED_S"] = 0.0
        case _:
            raise ValueError(hindrance)


if __name__ == "__main__":
    _hinder(sys.argv[1])
    serving.run(maintenance.main(sys.argv[2:]), "upkeep")
