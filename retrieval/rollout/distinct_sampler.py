"""Counts each number once per purpose, in bounded memory."""

from __future__ import annotations

# Purposes, as bits.
UNIT, ERROR, CLICK, CONVERSION, SLOW = (1 << bit for bit in range(5))
# The bits below select units that set thresholds (see retrieval.rollout.analysis).
_FIRST_BIT = 3


class DistinctSampler:
    """Remembers which numbers were counted for which purposes.

    When the memory is full, the sampler keeps only the numbers in which a certain bit is unset
    (half of them), and from then on only such numbers count. So no forgotten number can count
    again, and since the bit is independent of the outcomes, the remaining numbers are a fair
    sample.

    Args:
        most: Numbers to remember, at least 8: that many may differ in the 3 unused bits alone.

    weight: How many numbers each counted number represents.
    """

    def __init__(self, most: int = 1 << 17) -> None:
        self.weight = 1
        self._most = most
        self._left_out = 0
        self._counted: dict[int, int] = {}

    def first(self, number: int, purpose: int) -> bool:
        """Returns whether a number counts for a purpose, and remembers it.

        Args:
            number: A 64-bit hash.
            purpose: One of the purposes above, a power of two.
        """
        if number & self._left_out:
            return False
        before = self._counted.get(number, 0)
        if before & purpose:
            return False
        self._counted[number] = before | purpose
        # If no number has the bit set, nothing is removed, and the next bit is tried.
        while len(self._counted) > self._most:
            self._halve()
        return True

    def __len__(self) -> int:
        return len(self._counted)

    def _halve(self) -> None:
        self._left_out |= self.weight << _FIRST_BIT
        self.weight *= 2
        left_out = self._left_out
        self._counted = {
            number: purposes for number, purposes in self._counted.items() if not number & left_out
        }
