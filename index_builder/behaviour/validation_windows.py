"""Earlier windows of a data set, split as the one that a model is validated on."""

from __future__ import annotations

import numpy as np

from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import Split, split
from nearline.errors import InvalidRequest

# With less to learn from than this share of what the first window has, a window teaches what no
# longer holds.
_LEAST_SHARE = 0.3


def validation_windows(rows: Interactions, how: str, count: int, seed: int = 0) -> list[Split]:
    """Returns splits of one kind, the latest first, each inside the training part of that before.

    After a moment in time, each tests on as long a time as the first; other splits are made of the
    training part before, so that last-n:5 tests on the five interactions before the last five.

    Args:
        how: See `splits.split`.
        count: Of windows at most, >= 1. There are fewer where nothing is left to learn from or to
            test on, or much less than before.
        seed: Of what is at random.
    Raises: InvalidRequest: the first one leaves nothing to learn from or to test on.
    """
    first = split(rows, how, seed)
    found = [first]
    while len(found) < count:
        try:
            before = _before(first, found[-1]) if how.startswith("time:") else None
            part = before or split(found[-1].train, how, seed)
        except InvalidRequest:
            break
        if len(part.train.user) < _LEAST_SHARE * len(first.train.user) or not len(part.test.user):
            break
        found.append(part)
    return found


def _before(first: Split, last: Split) -> Split:
    """Splits in time: the test is as long as the first one, and ends where the last one begins."""
    length = first.test.time_us.max() - first.train.time_us.max()
    rows = last.train
    early = rows.time_us <= rows.time_us.max(initial=0) - length
    return Split(rows.some(early), rows.some(np.logical_not(early)))
