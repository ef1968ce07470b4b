"""How busy the machine is: times of tests allow for neighbours, and for nothing else."""

from __future__ import annotations

import time

# A request or a file may take this long on a machine that does nothing else.
MOST_S = 1.0
# Other work delays one of several tries, but not each of them.
TRIES = 3
_YARDSTICK_S = 0.03


def slowness() -> float:
    """Returns how many times as long as on an idle machine a computation takes now, at least 1."""
    start, cpu = time.perf_counter(), time.process_time()
    while (used := time.process_time() - cpu) < _YARDSTICK_S:
        pass
    return max(1.0, (time.perf_counter() - start) / used)


def in_time(spent_s: float, most_s: float = MOST_S) -> bool:
    """Returns whether something would have been quick enough on an idle machine."""
    return spent_s <= most_s or spent_s <= most_s * slowness()
