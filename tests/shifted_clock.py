"""Runs a module whose clock is ahead or behind: `python -m tests.shifted_clock -600 retrieval …`.

Only the time of day is shifted: monotonic clocks, and with them timeouts, are as they are. So is
the clock of gRPC, whose core would otherwise take deadlines by another clock than its Python code.
"""

from __future__ import annotations

import runpy
import sys
import time
from collections.abc import Sequence

import grpc.aio  # Its modules are to be loaded before they get their clock.
import time_machine


def main(argv: Sequence[str]) -> None:
    """Runs the module that the second argument names; the first is the shift in seconds."""
    shift_s, module, *arguments = argv
    sys.argv = [module, *arguments]
    for name, loaded in list(sys.modules.items()):
        if name.partition(".")[0] == grpc.__name__ and getattr(loaded, "time", None) is time:
            loaded.time = time_machine.escape_hatch.time  # type: ignore[attr-defined]
    with time_machine.travel(time.time() + float(shift_s), tick=True):
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
