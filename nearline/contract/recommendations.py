"""Recommended lists, what users did, and what is kept of a user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from nearline.contract.records import Hit, IgnoredId, ReplyInfo
from nearline.contract.terms import DEFAULT_COLLECTION, PayloadField
from nearline.filters import Filter

DEFAULT_SURFACE = "home"
DEFAULT_KIND = "view"
DEFAULT_N = 20
MAX_RECOMMENDED = 1_000
MAX_EXCLUDED = 10_000
MAX_EVENT_ID_BYTES = 128
MAX_KIND_BYTES = 64


class Cause(Enum):
    """Why an item is not in a list; see WhyNot in retrieval.proto."""

    LISTED = "listed"
    NO_SUCH_ITEM = "no_such_item"
    OUTRANKED = "outranked"
    SEEN = "seen"
    EXCLUDED = "excluded"
    BLOCKED = "blocked"
    FILTERED = "filtered"
    QUOTA = "quota"
    DIVERSITY = "diversity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """Whom and for what a list is made: a user, a session, example items, any of them or none."""

    user_id: str = ""
    session_id: str = ""
    item_ids: tuple[str, ...] = ()
    surface: str = DEFAULT_SURFACE


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendOptions:
    """Options of a list; see RecommendRequest in retrieval.proto. diversity: None: the policy's."""

    n: int = DEFAULT_N
    exclude_ids: tuple[str, ...] = ()
    filter: Filter | None = None
    payload: frozenset[PayloadField] = frozenset()
    diversity: float | None = None
    explain: bool = False
    min_watermark: bytes = b""
    why_not_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """One recommended item; reasons and propensity as in retrieval.proto, None: not known."""

    hit: Hit
    reasons: Sequence[str] = ()
    propensity: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyNot:
    """Why an item is not in a list. rank: Place before any rule, from 1; 0: no candidate."""

    id: str
    cause: Cause
    rank: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendReply:
    """A recommended list, best first. policy: Name, version and digest of the surface's."""

    recommendations: Sequence[Recommendation]
    ignored_ids: Sequence[IgnoredId]
    info: ReplyInfo
    policy: str
    why_not: WhyNot | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Interaction:
    """Something that a user, or somebody in a session, did with an item.

    time: Aware; None: when it was received. weight: > 0; None: that of its kind.
    list_id, position: The list that the item was shown in, and its place there from 0.
    event_id: The same one of a user counts once within 24 hours; empty: each counts.
    """

    item_id: str
    user_id: str = ""
    session_id: str = ""
    kind: str = DEFAULT_KIND
    time: datetime | None = None
    weight: float | None = None
    list_id: str = ""
    position: int | None = None
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class RecordReply:
    """Interactions that are durable now and were not before, and those that were already."""

    recorded: int
    duplicates: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRecord:
    """What is kept of a user, newest first.

    interactions: Recorded ones. learned: What the snapshot in force reads for the user.
    deleted: When the user was deleted last; None: never.
    """

    interactions: Sequence[Interaction]
    learned: Sequence[Interaction] = ()
    deleted: datetime | None = None


@dataclass(frozen=True, slots=True)
class Influence:
    """A snapshot whose models learned from a user, and whether it is served now."""

    snapshot_id: str
    in_force: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionReceipt:
    """What was erased of a user, and the snapshots that still carry a trace, newest first."""

    deleted: datetime
    interactions: int
    log_entries: int
    sessions: int
    snapshots: Sequence[Influence] = ()


class Recommender(Protocol):
    """Recommends items and remembers what users do; the service object and the client alike."""

    async def recommend(
        self,
        audience: Audience,
        options: RecommendOptions = ...,
        *,
        collection: str = DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> RecommendReply:
        """Makes a list; always answers, `info.served_by` says from what.

        Raises: InvalidRequest: a value out of range, or no such surface. NotFound: no such
            collection. NotReady, NotApplied, DeadlineExceeded.
        """
        ...

    async def record_interactions(
        self,
        interactions: Sequence[Interaction],
        *,
        collection: str = DEFAULT_COLLECTION,
        idempotency_key: str = "",
        timeout_s: float | None = None,
    ) -> RecordReply:
        """Stores 1..1024 interactions; returns when they are durable.

        Raises: NotReady: Redis is away, or does not promise to keep them. Unsupported: there is
            none. InvalidRequest, NotFound, DeadlineExceeded.
        """
        ...

    async def get_user(
        self,
        user_id: str,
        *,
        collection: str = DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> UserRecord:
        """Reads all that is kept of a user; nothing is kept of one who is not known.

        Raises: as `record_interactions`.
        """
        ...

    async def delete_user(
        self,
        user_id: str,
        *,
        collection: str = DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> DeletionReceipt:
        """Erases what is kept of a user; who is not known is erased, too.

        Raises: as `record_interactions`.
        """
        ...
