"""Limits, types of values, and enums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from nearline.filters import Filter

DEFAULT_COLLECTION = "default"
MAX_K = 10_000
MAX_BATCH = 1_024
MAX_EXAMPLES = 256
MAX_QUERY_CHARACTERS = 32_768
MAX_PAGE = 1_000
MAX_FACETS = 32
# Of one call of Suggest: the suggestions, and the characters typed so far.
MAX_SUGGESTIONS = 100
MAX_TYPED_CHARACTERS = 256
MAX_GROUP_SIZE = 100
MAX_RERANKED = 100
# Limits of one search over all its queries: hits, and groups that several hits are searched for.
MAX_HITS = 131_072
MAX_FILLED_GROUPS = 4_096

Scalar: TypeAlias = str | int | float | bool | datetime | None
AttributeValue: TypeAlias = Scalar | Sequence[Scalar]
Attributes: TypeAlias = Mapping[str, AttributeValue]

_Stored = TypeVar("_Stored", covariant=True)
_Given = TypeVar("_Given", contravariant=True)

if TYPE_CHECKING:

    class Converted(Generic[_Stored, _Given]):
        """A field of a record that people may set to `_Given`; clients convert it to `_Stored`.

        Only type checkers see this class.
        """

        def __get__(self, record: object, kind: type | None = None) -> _Stored: ...
        def __set__(self, record: object, value: _Given) -> None: ...

else:

    class Converted:
        """See above: the hint of such a field is what is stored."""

        def __class_getitem__(cls, types):
            return types[0]


# What people may write, and clients take.
Id: TypeAlias = str | int | np.integer[Any]
FilterLike: TypeAlias = Filter | str | Mapping[str, Any]
VectorLike: TypeAlias = NDArray[Any] | Sequence[float]


class TextRole(Enum):
    """The role of a text for the embedding model."""

    QUERY = "query"
    DOCUMENT = "document"


class Lane(Enum):
    """How urgent a request is: somebody waits for an interactive one, and nobody for a bulk one."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class SearchMode(Enum):
    """How candidates are found."""

    DENSE = "dense"
    LEXICAL = "lexical"
    HYBRID = "hybrid"


class HitLevel(Enum):
    """The unit of a hit: a document with its best chunk, or a chunk."""

    DOCUMENT = "document"
    CHUNK = "chunk"


class PayloadField(Enum):
    """A part of an item that a reply may carry."""

    TITLE = "title"
    TEXT = "text"
    ATTRIBUTES = "attributes"
    VECTOR = "vector"
    SECTION = "section"

    # Members are singletons. Enum's own hash runs in Python, for each member of each set of each
    # request.
    __hash__ = object.__hash__


PayloadLike: TypeAlias = Iterable[PayloadField | str]


class ClientPayload(frozenset[PayloadField]):
    """The payload of search options that leave it open.

    For a service it is empty, as on the wire; a client asks for titles and texts.
    """


CLIENT_PAYLOAD = ClientPayload()


class PlanStrategy(Enum):
    """Strategies for executing a filter in a shard; see FilterPlan in retrieval.proto."""

    EXACT = "exact"
    BITMAP = "bitmap"
    EXACT_AFTER_SHORT = "exact_after_short"
    EMPTY = "empty"
    BACKEND = "backend"


class IgnoredReason(Enum):
    """Why an id of the request was ignored."""

    NOT_FOUND = "not_found"
    SHARD_UNAVAILABLE = "shard_unavailable"


class WriteOutcome(Enum):
    """Outcome of a change to an item; see WriteResult in retrieval.proto."""

    APPLIED = "applied"
    REPLACED = "replaced"
    DELETED = "deleted"
    ABSENT = "absent"
    REJECTED = "rejected"
    UNCHANGED = "unchanged"
    SUPERSEDED = "superseded"


class Arm(Enum):
    """The snapshot that answered during a canary trial."""

    CURRENT = "current"
    CANARY = "canary"


class Source(Enum):
    """The source of an answer."""

    LIVE = "live"
    CACHE = "cache"
    FALLBACK = "fallback"
