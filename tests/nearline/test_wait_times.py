"""How long work waited, noted by several threads."""

from __future__ import annotations

import threading

from nearline.wait_times import WaitTimes


def test_the_quickest_of_each_place_counts_and_the_slowest_place() -> None:
    waits = WaitTimes()
    assert waits.take() == 0.0
    for where, waited_s in [("loop", 0.1), ("loop", 0.2), ("threads", 0.4), ("threads", 0.3)]:
        waits.note(where, waited_s)
    assert waits.take() == 0.3
    assert waits.take() == 0.0


def test_a_short_wait_is_not_lost_to_a_longer_one_noted_by_another_thread() -> None:
    waits = WaitTimes()
    waits.note("threads", 1.0)
    other = threading.Thread(target=waits.note, args=("threads", 0.001))

    class Meanwhile(float):
        """Lets the other thread run while it is compared."""

        def __gt__(self, value: float) -> bool:
            other.start()
            other.join(0.02)
            return float(self) > value

    waits.note("threads", Meanwhile(0.5))
    other.join()
    assert waits.take() == 0.001
