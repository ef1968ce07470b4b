"""Which path stands for which method of the services; every public method has a row.

    Route("POST", "/v1/collections/{collection}/search")

The names in a path, and the query of a GET or DELETE, are fields of the request. All else is in the
body, as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Route:
    """A verb and a path; `{name}` stands for a field of the request.

    rows: Whether a line of the body is an interaction, and the gateway puts lines together in
    batches; the other fields of a batch are in the query then.
    """

    verb: str
    path: str
    rows: bool = False

    @property
    def has_body(self) -> bool:
        """Whether the request has a body; without one, its fields are in the query."""
        return self.verb in ("POST", "PUT")


_COLLECTION = "/v1/collections/{collection}"
_JOB = "/v1/jobs/{job_id}"

ROUTES: Final[Mapping[str, Mapping[str, Route]]] = {
    "RetrievalService": {
        "Search": Route("POST", f"{_COLLECTION}/search"),
        "SearchBatch": Route("POST", f"{_COLLECTION}/search/batch"),
        "Recommend": Route("POST", f"{_COLLECTION}/recommend"),
        "RecordInteractions": Route("POST", f"{_COLLECTION}/interactions"),
        "ImportInteractions": Route("POST", f"{_COLLECTION}/interactions/import", rows=True),
        "GetItems": Route("POST", f"{_COLLECTION}/items/get"),
        "ListItems": Route("POST", f"{_COLLECTION}/items/list"),
        "CountItems": Route("POST", f"{_COLLECTION}/items/count"),
        "Suggest": Route("POST", f"{_COLLECTION}/suggest"),
        "UpsertItems": Route("PUT", f"{_COLLECTION}/items"),
        "DeleteItems": Route("POST", f"{_COLLECTION}/items/delete"),
        "UpsertItemsStream": Route("PUT", f"{_COLLECTION}/items/stream"),
        "DeleteItemsByFilter": Route("POST", f"{_COLLECTION}/items/delete/matching"),
        "DeleteItemsStream": Route("POST", f"{_COLLECTION}/items/delete/stream"),
        "SetUser": Route("PUT", f"{_COLLECTION}/users/{{user_id}}"),
        "GetUser": Route("GET", f"{_COLLECTION}/users/{{user_id}}"),
        "DeleteUser": Route("DELETE", f"{_COLLECTION}/users/{{user_id}}"),
    },
    "GenerationService": {
        "Generate": Route("POST", f"{_COLLECTION}/answers"),
        "VerifyCitation": Route("POST", f"{_COLLECTION}/citations/verify"),
        "GetSession": Route("GET", f"{_COLLECTION}/sessions/{{session_id}}"),
        "DeleteSession": Route("DELETE", f"{_COLLECTION}/sessions/{{session_id}}"),
    },
    "AdminService": {
        "CreateCollection": Route("PUT", _COLLECTION),
        "ListCollections": Route("GET", "/v1/collections"),
        "GetCollection": Route("GET", _COLLECTION),
        "DropCollection": Route("DELETE", _COLLECTION),
        "SetCollectionName": Route("PUT", f"{_COLLECTION}/target"),
        "GetPolicies": Route("GET", f"{_COLLECTION}/policies"),
        "SetPolicies": Route("PUT", f"{_COLLECTION}/policies"),
        "ListSnapshots": Route("GET", f"{_COLLECTION}/snapshots"),
        "GetSnapshot": Route("GET", f"{_COLLECTION}/snapshots/{{snapshot_id}}"),
        "PromoteSnapshot": Route("POST", f"{_COLLECTION}/snapshots/{{snapshot_id}}/promote"),
        "RollbackSnapshot": Route("POST", f"{_COLLECTION}/rollback"),
        "GetAliases": Route("GET", f"{_COLLECTION}/aliases"),
        "SetTrafficSplit": Route("PUT", f"{_COLLECTION}/rollout"),
        "GetRolloutStatus": Route("GET", f"{_COLLECTION}/rollout"),
        "GetServingStatus": Route("GET", "/v1/status"),
    },
    "IngestService": {
        "Submit": Route("POST", f"{_COLLECTION}/jobs"),
        "ListJobs": Route("GET", "/v1/jobs"),
        "GetJob": Route("GET", _JOB),
        "WatchJob": Route("GET", f"{_JOB}/events"),
        "CancelJob": Route("POST", f"{_JOB}/cancel"),
        "ListResults": Route("GET", f"{_JOB}/results"),
        "ListDeadLetters": Route("GET", "/v1/dead-letters"),
        "RequeueDeadLetters": Route("POST", "/v1/dead-letters/requeue"),
        "DeleteDeadLetters": Route("POST", "/v1/dead-letters/delete"),
        "GetQueue": Route("GET", "/v1/queue"),
    },
    "EmbeddingService": {
        "Embed": Route("POST", "/v1/embedding/embed"),
        "EmbedStream": Route("POST", "/v1/embedding/embed/stream"),
        "Rerank": Route("POST", "/v1/embedding/rerank"),
        "Entail": Route("POST", "/v1/embedding/entail"),
        "GetInfo": Route("GET", "/v1/embedding/info"),
    },
}
