"""How many routers `nearline up` starts, unless the user says, and on which cores."""

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


def router_core(number: int, routers: int) -> int | None:
    """Returns the only core of one of several routers, if they have none to spare; None: any.

    The threads of a router run one at a time, except within FAISS and numpy. On one core, they hand
    the interpreter lock and their data to each other in the core's own cache, so that a list takes
    5 ms instead of 6 to 7.

    Args:
        number: Of the router, from 0.
        routers: Number of routers.
    """
    cores = sorted(os.sched_getaffinity(0))
    return cores[number % len(cores)] if routers > 1 and routers >= len(cores) else None
