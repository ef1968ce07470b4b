"""What surfaces ask of their lists: a policy each, versioned, with a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

from nearline import wire
from nearline.contract import PayloadField
from nearline.errors import InvalidRequest
from nearline.filters import Filter
from nearline.times import DAY_US
from retrieval.cache.cached_list import message_digest
from retrieval.protocols.suggestions import suggest_names

# Of policies that no file gives; those of files start at 1.
BUILT_IN_VERSION = 0
NO_PAYLOAD: frozenset[PayloadField] = frozenset()


class Origin(Enum):
    """What a surface is made from: `from` in a policy file.

    AUTO: what goes with the items that are given, else what the user did, else what is popular.
    POPULAR, TRENDING: the same for everybody. BUY_AGAIN: what the user had, what is due first.
    """

    AUTO = "auto"
    POPULAR = "popular"
    TRENDING = "trending"
    BUY_AGAIN = "buy_again"


class SeenRule(NamedTuple):
    """Whether items that the user had are shown again.

    kinds: Of interactions, that make an item seen; empty: all. days: Only such as are at most so
    old; 0: for ever. With `repeat` neither is looked at.
    """

    repeat: bool = False
    kinds: frozenset[str] = frozenset()
    days: int = 0


HIDE_SEEN = SeenRule()


class Quota(NamedTuple):
    """At most so many items of a list have the same value of an attribute."""

    attribute: str
    most: int


class FreshRule(NamedTuple):
    """At least so many items of a list have a time at most so many days ago, if there are such."""

    attribute: str
    days: int
    places: int


class ExploreRule(NamedTuple):
    """So many places, the last ones, are drawn from the best `pool` candidates that are left."""

    places: int
    pool: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a surface asks of its lists; see docs/guides/surfaces.md.

    version: From 1; 0: built in. only: What every item fulfils, whatever is asked for; None:
    nothing. quotas: Sorted by attribute. pinned: Ids, in their order. diversity: 0..1.
    candidates: How many are looked at. digest: 8 hex digits over all but the name.
    """

    name: str
    version: int
    origin: Origin = Origin.AUTO
    only: Filter | None = None
    seen: SeenRule = HIDE_SEEN
    quotas: tuple[Quota, ...] = ()
    pinned: tuple[str, ...] = ()
    blocked: frozenset[str] = frozenset()
    diversity: float = 0.0
    fresh: FreshRule | None = None
    explore: ExploreRule | None = None
    candidates: int = 200
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _digest(self))

    @property
    def label(self) -> str:
        """Names the policy in replies and logs: home/3/8f14e45f."""
        return f"{self.name}/{self.version}/{self.digest}"

    def needs(self, diversity: float | None = None) -> frozenset[PayloadField]:
        """Says which parts of the candidates the rules read.

        Args:
            diversity: The request's; None: the policy's.
        """
        weight = self.diversity if diversity is None else diversity
        if not (weight or self.quotas or self.fresh):
            return NO_PAYLOAD
        needed = {PayloadField.ATTRIBUTES: self.quotas or self.fresh, PayloadField.VECTOR: weight}
        return frozenset(part for part, used in needed.items() if used)


class Policies:
    """The policy of each surface, by its name."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        self._by_name = {policy.name: policy for policy in policies}

    @property
    def surfaces(self) -> Sequence[str]:
        """Names of the surfaces, sorted."""
        return sorted(self._by_name)

    def of(self, surface: str) -> Policy:
        """Returns the policy of a surface.

        Raises: InvalidRequest: there is none of that name; says which there are.
        """
        policy = self._by_name.get(surface)
        if policy is None:
            raise InvalidRequest(
                f"surface {surface!r} has no policy; there are "
                f"{suggest_names(surface, self._by_name)}: ask for one of them, or add "
                f"[surfaces.NAME] to the policy file",
                field="surface",
            )
        return policy

    def replaced_by(self, others: Iterable[Policy]) -> Policies:
        """Returns these policies with others added, or put in place of those of the same names."""
        return Policies([*self._by_name.values(), *others])


def default_policies() -> Policies:
    """Returns what holds without a policy file.

    `cart` and `buy_again` show again what the user had, `home`, `item_page` and `trending` do not.
    """
    again = SeenRule(repeat=True)
    return Policies(
        [
            Policy(name="home", version=BUILT_IN_VERSION),
            Policy(name="item_page", version=BUILT_IN_VERSION),
            Policy(name="cart", version=BUILT_IN_VERSION, seen=again),
            Policy(name="trending", version=BUILT_IN_VERSION, origin=Origin.TRENDING),
            Policy(name="buy_again", version=BUILT_IN_VERSION, origin=Origin.BUY_AGAIN, seen=again),
        ]
    )


class ItemEvent(Protocol):
    """Something that a user did with an item. time_us: Microseconds since 1970."""

    @property
    def item_id(self) -> str: ...
    @property
    def time_us(self) -> int: ...
    @property
    def kind(self) -> str: ...


def seen_items(policy: Policy, events: Iterable[ItemEvent], *, now_us: int) -> frozenset[str]:
    """Returns the ids of items that a list may not show because the user had them.

    Args:
        policy: Of the surface.
        events: Of the user, in any order. One whose kind is not known (empty) counts as of each
            kind: to hide too much does less harm.
        now_us: Microseconds since 1970; an event exactly `seen_days` ago still counts.
    """
    repeat, kinds, days = policy.seen
    if repeat:
        return frozenset()
    return frozenset(
        event.item_id
        for event in events
        if (not kinds or not event.kind or event.kind in kinds)
        and (not days or event.time_us >= now_us - days * DAY_US)
    )


def filter_digest(condition: Filter | None) -> str:
    """Returns 24 hex digits of a filter, equal in every process; empty for None."""
    return "" if condition is None else message_digest(wire.filter_to_proto(condition))


def _digest(policy: Policy) -> str:
    content: dict[str, object] = {
        "version": policy.version,
        "seen": [policy.seen.repeat, sorted(policy.seen.kinds), policy.seen.days],
        "quotas": policy.quotas,
        "pinned": policy.pinned,
        "blocked": sorted(policy.blocked),
        "diversity": float(policy.diversity),
        "fresh": policy.fresh,
        "explore": policy.explore,
        "candidates": policy.candidates,
    }
    # Only where they are used: a policy without them keeps the digest that it had before there
    # were such keys.
    if policy.origin is not Origin.AUTO:
        content["from"] = policy.origin.value
    if policy.only is not None:
        content["only"] = filter_digest(policy.only)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
