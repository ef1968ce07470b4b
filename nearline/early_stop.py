"""Ends the first process of a container at SIGTERM, until it has a handler of its own.

Programs import this before anything else. Linux ignores a signal to such a process that has no
handler: a stop during its imports, or during a build, would wait out the grace period.
"""

from __future__ import annotations

import os
import signal


def _end(number: int, frame: object) -> None:
    # At once, with the code of a process that the signal ended: handlers run between any two lines.
    os._exit(128 + number)


# Elsewhere the signal ends a process without this.
if os.getpid() == 1:
    signal.signal(signal.SIGTERM, _end)
