"""Nearline: recommendation and RAG retrieval over your own catalogue and documents."""

from nearline.blocking import BlockingRetrievalClient
from nearline.clients import AdminClient, EmbeddingClient, RetrievalClient
from nearline.contract import (
    Coverage,
    EmbedderInfo,
    Embeddings,
    Hit,
    HitLevel,
    HitList,
    Item,
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
    "Coverage",
    "EmbedderInfo",
    "EmbeddingClient",
    "Embeddings",
    "Hit",
    "HitLevel",
    "HitList",
    "Item",
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
