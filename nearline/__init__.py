"""Nearline: recommendation and RAG retrieval over your own catalogue and documents."""

from nearline.blocking import BlockingRetrievalClient
from nearline.clients import AdminClient, EmbeddingClient, RetrievalClient
from nearline.contract import (
    CountReply,
    Coverage,
    EmbedderInfo,
    Embeddings,
    Facet,
    FacetCounts,
    FilterPlan,
    Grouping,
    Hit,
    HitLevel,
    HitList,
    Item,
    ItemsPage,
    ItemsReply,
    Lane,
    PayloadField,
    Query,
    ReplyInfo,
    SearchMode,
    SearchOptions,
    SearchReply,
    TextRole,
)
from nearline.errors import NearlineError

__version__ = "0.1.0"

__all__ = [
    "AdminClient",
    "BlockingRetrievalClient",
    "CountReply",
    "Coverage",
    "EmbedderInfo",
    "EmbeddingClient",
    "Embeddings",
    "Facet",
    "FacetCounts",
    "FilterPlan",
    "Grouping",
    "Hit",
    "HitLevel",
    "HitList",
    "Item",
    "ItemsPage",
    "ItemsReply",
    "Lane",
    "NearlineError",
    "PayloadField",
    "Query",
    "ReplyInfo",
    "RetrievalClient",
    "SearchMode",
    "SearchOptions",
    "SearchReply",
    "TextRole",
]
