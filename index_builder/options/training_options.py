"""What a build is told to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import check_split_name, split
from nearline.errors import InvalidRequest

# Every user with six interactions or more is tested on what came last, which is what a list for
# them would have had to find. A split in time leaves hardly anybody to test where users do all they
# do on one day (ml-latest-small); where rows are the lines of baskets it is the better one, since
# it parts no basket.
VALIDATE_ON = "last-n:5"
# Steps that learning tells of where it takes all: a training to choose on, two blends chosen, three
# windows looked at, two rankers, a training on everything, and the tables written.
STEPS = 10
MAX_KEEP_DAYS = 36_525


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """Interactions to learn from, and how to choose what serves.

    interactions: Read and cleaned. left_out: What reading and cleaning left out, by reason.
    kind_weights: What a kind of interaction counts.
    recorded: How many of the interactions a running service recorded.
    adds: Whether they add to what the snapshot before learned from, or take its place. What both
        have, told by user, item and second, is not kept twice.
    keep_days: What is more days older than the newest is left out; 0: nothing is.
    validate_on: Split that the blends are chosen on, see `splits.split`; empty: `VALIDATE_ON`, and
        where that leaves nothing, no choice. k: Places of a list there.
    """

    interactions: Interactions
    left_out: Mapping[str, int] = field(default_factory=dict)
    kind_weights: Mapping[str, float] = field(default_factory=dict)
    recorded: int = 0
    append: bool = False
    keep_days: int = 0
    validate_on: str = ""
    k: int = 10

    def check(self, seed: int) -> None:
        """Raises InvalidRequest where a value is out of range, or the split leaves nothing to test
        on, which cannot be told yet where more interactions will be there.
        """
        if not 0 <= self.keep_days <= MAX_KEEP_DAYS:
            raise InvalidRequest(
                f"keep_days is {self.keep_days}; 0..{MAX_KEEP_DAYS} is allowed", field="keep_days"
            )
        if self.validate_on.startswith("cold-items"):
            raise InvalidRequest(
                f"validate_on is {self.validate_on!r}: of items without interactions nothing is "
                "learned that could be chosen; use last-n:N, first-n:N, loo, time:F or "
                "cold-users:F",
                field="validate_on",
            )
        if self.validate_on and (self.append or not len(self.interactions.user)):
            check_split_name(self.validate_on)
        elif self.validate_on:
            split(self.interactions, self.validate_on, seed)
