"""Options for training on interactions."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field

from index_builder.interactions.records import Interactions
from index_builder.interactions.splits import check_split_name, split
from nearline.contract import Attributes
from nearline.errors import InvalidRequest, SettingsError

# Every user with six interactions or more is tested on their last ones, which a list would have had
# to contain. A split by time leaves almost no users to test if they act on a single day
# (ml-latest-small). For data whose rows are lines of baskets it is better, as it splits no basket.
VALIDATE_ON = "last-n:5"
MAX_KEEP_DAYS = 36_525
# Without LightGBM, a build trains everything but rankers, and says so.
_PACKAGES = ("implicit", "scipy")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """Interactions to train on, and how to select the models.

    interactions: Read and cleaned.
    left_out: Number of interactions left out by reading and cleaning, by reason.
    kind_weights: Weight of each kind of interaction.
    attributes: Attributes of users, by id.
    recorded: How many of the interactions were recorded by a running service.
    append: Whether to add them to the training data of the previous snapshot instead of replacing
        it. Interactions with the same user, item and second are kept once.
    keep_days: Leave out interactions that are more days older than the newest; 0 keeps all.
    validate_on: Split for choosing the blends, see `splits.split`. If empty, `VALIDATE_ON` is used
        unless it leaves no users to test.
    k: Length of the lists in validation.
    popularity_debias: Discount for popularity in lists, 0..1; None lets validation choose it for
        each kind of list.
    """

    interactions: Interactions
    left_out: Mapping[str, int] = field(default_factory=dict)
    kind_weights: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[str, Attributes] = field(default_factory=dict)
    recorded: int = 0
    append: bool = False
    keep_days: int = 0
    validate_on: str = ""
    k: int = 10
    popularity_debias: float | None = None

    def check(self, seed: int) -> None:
        """Raises InvalidRequest if a value is out of range or the split leaves no users to test.

        The split is not checked yet if more interactions are to be added.

        Raises: SettingsError: packages for training are not installed.
        """
        if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
            raise SettingsError(
                f"training on interactions needs {' and '.join(missing)}, not installed here; run "
                "pip install 'nearline-server[training]', or build without interactions"
            )
        if not 0 <= self.keep_days <= MAX_KEEP_DAYS:
            raise InvalidRequest(
                f"keep_days is {self.keep_days}; 0..{MAX_KEEP_DAYS} is allowed", field="keep_days"
            )
        debias = self.popularity_debias
        if debias is not None and not 0 <= debias <= 1:
            raise InvalidRequest(
                f"popularity_debias is {debias}; 0..1 is allowed; leave it out to let validation "
                "choose it",
                field="popularity_debias",
            )
        if self.validate_on.startswith("cold-items"):
            raise InvalidRequest(
                f"validate_on is {self.validate_on!r}, but models know nothing about items without "
                "interactions; use last-n:N, first-n:N, loo, time:F or cold-users:F",
                field="validate_on",
            )
        if self.validate_on and (self.append or not len(self.interactions.user)):
            check_split_name(self.validate_on)
        elif self.validate_on:
            split(self.interactions, self.validate_on, seed)
