"""Policies: the rules for the lists of each surface, versioned and identified by a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import NamedTuple, Protocol

from nearline import wire
from nearline.contract import Attributes, PayloadField
from nearline.errors import InvalidRequest
from nearline.filters import Filter
from nearline.times import DAY_US, to_us
from retrieval.cache.cached_list import message_digest
from retrieval.protocols.request_validation import suggest_names
from retrieval.users.records import UserEvent

# Version of policies that no file defines; files start at 1.
BUILT_IN_VERSION = 0
NO_PAYLOAD: frozenset[PayloadField] = frozenset()


class Origin(Enum):
    """Where the candidates of a surface come from: `from` in a policy file.

    Each has a class in `strategies`. AUTO: the items of the request, else the user's history, else
    popularity. POPULAR, TRENDING: the same for everyone. BUY_AGAIN: items that the user had, those
    due first.
    """

    AUTO = "auto"
    POPULAR = "popular"
    TRENDING = "trending"
    BUY_AGAIN = "buy_again"


class SeenRule(NamedTuple):
    """Whether items that the user had are shown again.

    kinds: Kinds of interactions that count; empty: all. days: Age in days up to which they count;
    0: any age. Both are ignored if `repeat` is set. by_item: Whether items that users have again
    are shown again, and only interactions that weigh much count; without kinds and days.
    """

    repeat: bool = False
    kinds: frozenset[str] = frozenset()
    days: int = 0
    by_item: bool = False


HIDE_SEEN, BY_ITEM = SeenRule(), SeenRule(by_item=True)


class Quota(NamedTuple):
    """Limits the items of a list that share a value of an attribute to `most`."""

    attribute: str
    most: int


class FreshRule(NamedTuple):
    """Reserves `places` of a list for items whose time attribute is at most `days` ago."""

    attribute: str
    days: int
    places: int

    def since_us(self, now_us: int) -> int:
        """Returns since when an item is new, in microseconds since 1970."""
        return now_us - self.days * DAY_US

    def is_new(self, attributes: Attributes | None, now_us: int) -> bool:
        """Returns whether an item is new; of several times, the latest counts."""
        value = (attributes or {}).get(self.attribute)
        times = value if isinstance(value, list | tuple) else (value,)
        since_us = self.since_us(now_us)
        return any(isinstance(time, datetime) and to_us(time) >= since_us for time in times)


class ExploreRule(NamedTuple):
    """Draws the last `places` of a list from the best `pool` remaining candidates."""

    places: int
    pool: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules for the lists of a surface; see docs/guides/surfaces.md.

    version: From 1; 0: built in. only: Optional filter that every listed item matches, besides the
    filter of the request. quotas: Sorted by attribute. pinned: Ids in the order in which they are
    listed. diversity: 0..1. popularity_debias: 0..1; None: the snapshot's value.
    candidates: Number of candidates that rules choose from. digest: 8 hex digits over all fields
    except the name.
    """

    name: str
    version: int
    origin: Origin = Origin.AUTO
    only: Filter | None = None
    seen: SeenRule = BY_ITEM
    quotas: tuple[Quota, ...] = ()
    pinned: tuple[str, ...] = ()
    blocked: frozenset[str] = frozenset()
    diversity: float = 0.0
    popularity_debias: float | None = None
    fresh: FreshRule | None = None
    explore: ExploreRule | None = None
    candidates: int = 200
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _digest(self))

    @property
    def label(self) -> str:
        """Name of the policy in replies and logs, such as home/3/8f14e45f."""
        return f"{self.name}/{self.version}/{self.digest}"

    def needs(self, diversity: float | None = None) -> frozenset[PayloadField]:
        """Returns the fields of candidates that the rules read.

        Args:
            diversity: Diversity of the request; None uses the policy's.
        """
        weight = self.diversity if diversity is None else diversity
        if not (weight or self.quotas or self.fresh):
            return NO_PAYLOAD
        needed = {PayloadField.ATTRIBUTES: self.quotas or self.fresh, PayloadField.VECTOR: weight}
        return frozenset(field for field, used in needed.items() if used)


class PolicySource(Protocol):
    """Knows the policies of each collection."""

    def of(self, collection: str, variant: str = "") -> Policies:
        """Returns the policies of the surfaces of a collection: those in force, or on trial.

        Args:
            variant: Names those on trial, see `ServedCollection`; empty for those in force.
        """
        ...


class Policies:
    """The policies of all surfaces."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        self._by_name = {policy.name: policy for policy in policies}

    @property
    def surfaces(self) -> Sequence[str]:
        """Names of the surfaces, sorted."""
        return sorted(self._by_name)

    def of(self, collection: str, variant: str = "") -> Policies:
        """Returns itself: these policies are those of every collection."""
        return self

    def for_surface(self, surface: str) -> Policy:
        """Returns the policy of a surface.

        Raises: InvalidRequest: no policy has that name; names those that exist.
        """
        policy = self._by_name.get(surface)
        if policy is None:
            raise InvalidRequest(
                f"surface {surface!r} has no policy; use one of "
                f"{suggest_names(surface, self._by_name)}, or add [surfaces.NAME] to the policy "
                "file",
                field="surface",
            )
        return policy

    def merged_with(self, others: Iterable[Policy]) -> Policies:
        """Returns these policies and others, which replace policies of the same name."""
        return Policies([*self._by_name.values(), *others])


def default_policies() -> Policies:
    """Returns the built-in policies, which apply without a policy file.

    `cart` and `buy_again` repeat items that the user had; `home`, `item_page` and `trending` only
    those that users have again.
    """
    repeats = SeenRule(repeat=True)
    return Policies(
        [
            Policy(name="home", version=BUILT_IN_VERSION),
            Policy(name="item_page", version=BUILT_IN_VERSION),
            Policy(name="cart", version=BUILT_IN_VERSION, seen=repeats),
            Policy(name="trending", version=BUILT_IN_VERSION, origin=Origin.TRENDING),
            Policy(
                name="buy_again", version=BUILT_IN_VERSION, origin=Origin.BUY_AGAIN, seen=repeats
            ),
        ]
    )


def seen_items(policy: Policy, events: Iterable[UserEvent], *, now_us: int) -> frozenset[str]:
    """Returns the ids of items that a list hides because the user had them.

    Args:
        policy: The policy of the surface.
        events: Events of the user in any order. An event of unknown (empty) kind counts as every
            kind, since hiding too much does less harm.
        now_us: Microseconds since 1970; an event exactly `seen_days` ago still counts.
    """
    repeat, kinds, days, _ = policy.seen
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
    # Added only if set, so that policies without these keys keep their former digest.
    if policy.seen.by_item:
        content["seen_by_item"] = True
    if policy.origin is not Origin.AUTO:
        content["from"] = policy.origin.value
    if policy.only is not None:
        content["only"] = filter_digest(policy.only)
    if policy.popularity_debias is not None:
        content["popularity_debias"] = float(policy.popularity_debias)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
