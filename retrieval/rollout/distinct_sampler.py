"""What has been counted, so that nothing counts twice, in bounded memory."""

from __future__ import annotations

# Purposes; those above LATENCY are latency's, too.
UNIT, ERROR, CLICK, CONVERSION, TAIL, LATENCY = (1 << bit for bit in range(6))
# The lowest bits of a number choose units that set thresholds (retrieval.rollout.latency_test).
_FIRST_BIT = 3


class DistinctSampler:
    """Remembers what was counted for which purposes.

    Once the memory is full it keeps half, by a bit of the number, and from then on only numbers of
    that half count: none that was forgotten can count again, and since the bit has nothing to do
    with what became of them, those that still count are a fair sample.

    Args:
        most: Numbers remembered; at least 8: so many may differ in bits that no half goes by.

    weight: How many each one that counts now stands for.
    """

    def __init__(self, most: int = 1 << 17) -> None:
        self.weight = 1
        self._most = most
        self._left_out = 0
        self._counted: dict[int, int] = {}

    def first(self, number: int, purpose: int) -> bool:
        """Returns whether a number counts for a purpose, and remembers that it has.

        Args:
            number: A 64-bit hash.
            purpose: One of those above: a power of two.
        """
        if number & self._left_out:
            return False
        before = self._counted.get(number, 0)
        if before & purpose:
            return False
        self._counted[number] = before | purpose
        # A bit that all of them share leaves none out: then the next one has to.
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
