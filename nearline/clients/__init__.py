"""Async clients of the services; each satisfies the protocol of its service."""

from nearline.channel import DEFAULT_TIMEOUT_S
from nearline.clients.admin import AdminClient
from nearline.clients.client import AsyncClient
from nearline.clients.embedding import EmbeddingClient
from nearline.clients.generation import GenerationClient
from nearline.clients.ingest import IngestClient
from nearline.clients.retrieval import (
    ALL_BUT_VECTOR,
    DEFAULT_LIST,
    DEFAULT_OPTIONS,
    RetrievalClient,
)

__all__ = [
    "ALL_BUT_VECTOR",
    "DEFAULT_LIST",
    "DEFAULT_OPTIONS",
    "DEFAULT_TIMEOUT_S",
    "AdminClient",
    "AsyncClient",
    "EmbeddingClient",
    "GenerationClient",
    "IngestClient",
    "RetrievalClient",
]
