"""Recommendations, interactions, stored user data, and the protocol of the service."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple, Protocol

from nearline.contract.records import Hit, IgnoredId, ReplyInfo, hit_columns, source_line
from nearline.contract.tables import TableReply
from nearline.contract.terms import (
    CLIENT_PAYLOAD,
    DEFAULT_COLLECTION,
    Attributes,
    Converted,
    FilterLike,
    Id,
    PayloadField,
    PayloadLike,
)
from nearline.filters import Filter

DEFAULT_SURFACE = "home"
DEFAULT_KIND = "view"
DEFAULT_N = 20
MAX_RECOMMENDED = 1_000
MAX_EXCLUDED = 10_000
MAX_EVENT_ID_BYTES = 128
MAX_KIND_BYTES = 64
MAX_USER_ATTRIBUTES = 32
# Most rows of a batch of an import, and rows of each of its parts but the last.
MAX_IMPORT_ROWS = 10_000
IMPORT_PART_ROWS = 100_000


class Cause(Enum):
    """Why an item is missing from a list; see WhyNot in retrieval.proto."""

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
    """The context of a list: the surface, and any of a user, a session and example items.

    All of the latter may be empty. context: What is known about the moment, such as a device or a
    place: 0..32 texts, numbers or truth values.
    """

    user_id: Converted[str, Id] = ""  # type: ignore[assignment]
    session_id: str = ""
    item_ids: Converted[tuple[str, ...], Iterable[Id]] = ()  # type: ignore[assignment]
    surface: str = DEFAULT_SURFACE
    context: Attributes = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendOptions:
    """Options of a list; see RecommendRequest in retrieval.proto.

    payload: Parts of items to return. Unless set, clients ask for titles and texts. diversity:
    Optional; None uses the policy's value. popularity_debias: How much the popularity of items is
    discounted, 0..1. Optional; None uses the policy's value, else the snapshot's. unrecorded: Keeps
    the list out of what is recorded.
    """

    n: int = DEFAULT_N
    exclude_ids: Converted[tuple[str, ...], Iterable[Id]] = ()  # type: ignore[assignment]
    filter: Converted[Filter | None, FilterLike | None] = None  # type: ignore[assignment]
    payload: Converted[frozenset[PayloadField], PayloadLike] = CLIENT_PAYLOAD  # type: ignore[assignment]
    diversity: float | None = None
    explain: bool = False
    min_watermark: bytes = b""
    why_not_id: str = ""
    popularity_debias: float | None = None
    unrecorded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """One recommended item; see Recommendation in retrieval.proto. propensity: None if unknown."""

    hit: Hit
    reasons: Sequence[str] = ()
    propensity: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyNot:
    """Why an item is not in a list. rank: Rank before any rule, from 1; 0 if it is no candidate."""

    id: str
    cause: Cause
    rank: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendReply(TableReply):
    """A recommended list, best first; a row per item as a table.

    policy: Name, version and digest of the surface's policy. story: For people: where the
    candidates come from, then what each rule left out or moved; empty unless it was asked for.
    """

    recommendations: Sequence[Recommendation]
    ignored_ids: Sequence[IgnoredId]
    info: ReplyInfo
    policy: str
    why_not: WhyNot | None = None
    story: Sequence[str] = ()

    def _rows(self) -> Iterator[tuple[dict[str, Any], Attributes]]:
        for one in self.recommendations:
            reasons = {"reasons": list(one.reasons)} if one.reasons else {}
            columns = hit_columns(one.hit)
            for name in ("chunk", "start", "end"):
                del columns[name]
            yield columns | reasons, one.hit.attributes or {}

    def _caption(self) -> str:
        return f"policy {self.policy} · {source_line(self.info)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interaction:
    """An action of a user or a session on an item.

    time: Aware; None means the time of receipt. weight: > 0; None means the weight of its kind.
    list_id, position: The list that showed the item, and its position there, from 0.
    event_id: Interactions of a user with the same event id count once within 24 hours, unless 4,096
    newer ones came between; interactions without one always count.
    """

    item_id: str
    user_id: Converted[str, Id] = ""  # type: ignore[assignment]
    session_id: str = ""
    kind: str = DEFAULT_KIND
    time: datetime | None = None
    weight: float | None = None
    list_id: str = ""
    position: int | None = None
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class RecordReply:
    """Numbers of newly stored interactions, and of duplicates that were stored before.

    unknown_items: Interactions, stored all the same, whose item the collection does not have.
    """

    recorded: int
    duplicates: int = 0
    unknown_items: int = 0


class InteractionColumns(NamedTuple):
    """Interactions of the past, at most 10,000: a value per row in each column.

    times_us: Microseconds since 1970. kinds: Empty if all are of kind "view". weights: 0 is the
    weight of the kind; empty if all are 0.
    """

    user_ids: Sequence[str] = ()
    item_ids: Sequence[str] = ()
    times_us: Sequence[int] = ()
    kinds: Sequence[str] = ()
    weights: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class ImportReply:
    """Rows of an import that are stored, and which of those sent are new or were stored before."""

    rows: int
    recorded: int
    duplicates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRecord:
    """Stored data of a user, newest first.

    interactions: Recorded interactions. learned: Interactions that the current snapshot learned.
    deleted: Time of the last deletion of the user; None if never deleted.
    """

    interactions: Sequence[Interaction]
    learned: Sequence[Interaction] = ()
    deleted: datetime | None = None
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Influence:
    """A snapshot whose models learned from a user, and whether it is current."""

    snapshot_id: str
    in_force: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionReceipt:
    """The deleted data of a user, and the snapshots that learned from the user, newest first.

    imports_left_out: Whether the collection has imported interactions; those of the user from
    before the deletion are left out of every later training. recorded_requests: Erased records of
    searches and lists that named the user: always 0, since they are recorded without users.
    """

    deleted: datetime
    interactions: int
    log_entries: int
    sessions: int
    snapshots: Sequence[Influence] = ()
    imports_left_out: bool = False
    attributes: int = 0
    recorded_requests: int = 0


class Recommender(Protocol):
    """Recommends items and stores interactions; satisfied by the service object and the client."""

    async def recommend(
        self,
        audience: Audience,
        options: RecommendOptions = ...,
        *,
        collection: str = DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> RecommendReply:
        """Recommends a list; always answers, and `info.served_by` names the source.

        Raises: InvalidRequest: a value is out of range, or the surface is unknown. NotFound: the
            collection is unknown. NotReady, NotApplied, DeadlineExceeded.
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

        Raises: NotReady: Redis is down or not durable. FeedBlocked: Redis is nearly full.
            Unsupported: no Redis is configured. InvalidRequest, NotFound, DeadlineExceeded.
        """
        ...

    async def import_interactions(
        self,
        batches: AsyncIterable[InteractionColumns],
        *,
        import_id: str,
        first_row: int = 0,
        collection: str = DEFAULT_COLLECTION,
    ) -> ImportReply:
        """Stores interactions of the past, for the next training; returns when they are durable.

        Args:
            batches: Batches of at most 10,000 rows. One without rows asks how many are stored.
            import_id: Name of the import. If it is interrupted, send the same rows under the same
                name again: those that are stored are not stored twice.
            first_row: Rows of the import before these, a multiple of 100,000; to resume.
        Raises: AlreadyExists: the import has other rows. FeedBlocked: the disk is nearly full.
            InvalidRequest, NotFound, StoreError.
        """
        ...

    async def set_user(
        self,
        user_id: str,
        attributes: Attributes,
        *,
        collection: str = DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> None:
        """Replaces the attributes of a user, 0..32; raises as `record_interactions` does."""
        ...

    async def get_user(
        self,
        user_id: str,
        *,
        collection: str = DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> UserRecord:
        """Returns the stored data of a user, with the newest 10,000 recorded interactions.

        Raises: See `record_interactions`.
        """
        ...

    async def delete_user(
        self,
        user_id: str,
        *,
        collection: str = DEFAULT_COLLECTION,
        timeout_s: float | None = None,
    ) -> DeletionReceipt:
        """Deletes all stored data of a user, known or not.

        Raises: See `record_interactions`.
        """
        ...
