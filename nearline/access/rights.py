"""The right that each method needs; a method without a row is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final


class Right(IntEnum):
    """A right of a caller; each includes those below it.

    READ: Searches, lists, answers, and reads of items and of one's own data.
    WRITE: Changes of items, interactions, users and the document queue.
    ADMIN: Releases, and settings of a collection.
    SERVICE: What Nearline's services ask of each other, on behalf of any caller.
    """

    NONE = 0
    READ = 1
    WRITE = 2
    ADMIN = 3
    SERVICE = 4


class Scope(StrEnum):
    """Which collections a call concerns.

    ONE: That of the field `collection`; the default collection if the field is empty.
    BATCHES: That of each message of a stream, in its `request`.
    NONE: No collection; the right for any collection is enough.
    """

    ONE = "one"
    BATCHES = "batches"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class MethodAccess:
    """The row of one method.

    right: The least right that its caller needs.
    scope: The collections for which the caller needs it.
    audited: Whether each call is written to the audit log; refusals always are.
    """

    right: Right
    scope: Scope = Scope.ONE
    audited: bool = False


_READ = MethodAccess(Right.READ)
_WRITE = MethodAccess(Right.WRITE)
_OF_ANY = MethodAccess(Right.READ, Scope.NONE)
_RELEASE = MethodAccess(Right.ADMIN, audited=True)
_BETWEEN_SERVICES = MethodAccess(Right.SERVICE, Scope.NONE)
# Jobs and letters belong to tenants; the servicer restricts them to the caller's own.
_READ_QUEUE = MethodAccess(Right.READ, Scope.NONE)

# Its name in release 0.2.0, whose routers call shard servers of the next release by it.
OLD_SHARD_SERVICE: Final = "nearline.v1.ShardService"
_SHARD_METHODS: Final = {
    "SearchShard": _BETWEEN_SERVICES,
    "FetchItems": _BETWEEN_SERVICES,
    "ScanItems": _BETWEEN_SERVICES,
    "CountShard": _BETWEEN_SERVICES,
    "SuggestShard": _BETWEEN_SERVICES,
    "FindCandidates": _BETWEEN_SERVICES,
    "ReadHistory": _BETWEEN_SERVICES,
    # `nearline status` shows it.
    "GetStatus": _OF_ANY,
    "LoadSnapshot": _BETWEEN_SERVICES,
    "UnloadSnapshot": _BETWEEN_SERVICES,
}

METHODS: Final[Mapping[str, Mapping[str, MethodAccess]]] = {
    "nearline.v1.RetrievalService": {
        "Search": _READ,
        "SearchBatch": _READ,
        "Recommend": _READ,
        "RecordInteractions": _WRITE,
        "ImportInteractions": MethodAccess(Right.WRITE, Scope.BATCHES),
        "GetItems": _READ,
        "ListItems": _READ,
        "CountItems": _READ,
        "Suggest": _READ,
        "UpsertItems": _WRITE,
        "DeleteItems": MethodAccess(Right.WRITE, audited=True),
        "DeleteItemsByFilter": MethodAccess(Right.WRITE, audited=True),
        "UpsertItemsStream": MethodAccess(Right.WRITE, Scope.BATCHES),
        "DeleteItemsStream": MethodAccess(Right.WRITE, Scope.BATCHES, audited=True),
        "SetUser": _WRITE,
        "GetUser": _READ,
        "DeleteUser": MethodAccess(Right.WRITE, audited=True),
    },
    "nearline.v1.AdminService": {
        "CreateCollection": _RELEASE,
        # Shows the collections that the caller may read.
        "ListCollections": _OF_ANY,
        "GetCollection": _READ,
        "DropCollection": _RELEASE,
        "SetCollectionName": _RELEASE,
        "GetPolicies": _READ,
        "SetPolicies": _RELEASE,
        "ListSnapshots": _READ,
        "GetSnapshot": _READ,
        "GetAliases": _READ,
        # Shows the collections that the caller may read.
        "GetServingStatus": _OF_ANY,
        "GetRolloutStatus": _READ,
        "PromoteSnapshot": _RELEASE,
        "RollbackSnapshot": _RELEASE,
        "SetTrafficSplit": _RELEASE,
    },
    "nearline.v1.EmbeddingService": {
        "Embed": _OF_ANY,
        "EmbedStream": _OF_ANY,
        "Rerank": _OF_ANY,
        "Entail": _OF_ANY,
        "GetInfo": _OF_ANY,
    },
    "nearline.v1.GenerationService": {
        "Generate": _READ,
        "VerifyCitation": _READ,
        # A conversation belongs to its caller.
        "GetSession": _READ,
        "DeleteSession": MethodAccess(Right.READ, audited=True),
    },
    "nearline.v1.IngestService": {
        "Submit": _WRITE,
        "GetJob": _READ_QUEUE,
        "WatchJob": _READ_QUEUE,
        "ListJobs": _READ_QUEUE,
        "CancelJob": MethodAccess(Right.WRITE, Scope.NONE, audited=True),
        "ListResults": _READ_QUEUE,
        "ListDeadLetters": _READ_QUEUE,
        "RequeueDeadLetters": MethodAccess(Right.WRITE, Scope.NONE, audited=True),
        "DeleteDeadLetters": MethodAccess(Right.WRITE, Scope.NONE, audited=True),
        "GetQueue": _READ_QUEUE,
    },
    "nearline.internal.v1.ShardService": _SHARD_METHODS,
    OLD_SHARD_SERVICE: _SHARD_METHODS,
}
