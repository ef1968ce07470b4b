"""How many routers `nearline up` starts, unless the user says."""

from __future__ import annotations

import os

_MOST = 4


def default_router_count(*, shares_state: bool) -> int:
    """Returns one router for every two cores, at most four.

    The other core is for the router's search threads and the other services.

    Args:
        shares_state: Whether there is a Redis. Without one, each router would have its own sessions
            and budgets, so there is one router.
    """
    cores = len(os.sched_getaffinity(0))
    return max(1, min(_MOST, cores // 2)) if shares_state else 1
