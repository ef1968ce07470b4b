"""A document store and retrievers for Haystack: `pip install 'nearline[haystack]'`."""

from __future__ import annotations

from typing import Any

from nearline import contract as c
from nearline.integrations.extras import missing_extra
from nearline.integrations.haystack_store import NearlineDocumentStore

try:
    from haystack import component, default_from_dict, default_to_dict
    from haystack.dataclasses import Document
    from haystack.document_stores.types import FilterPolicy, apply_filter_policy
except ImportError as error:
    raise missing_extra("haystack", error) from error

__all__ = ["NearlineDocumentStore", "NearlineEmbeddingRetriever", "NearlineRetriever"]


@component
class NearlineRetriever:
    """Retrieves documents by a text, and by its embedding where Nearline does not embed.

        pipeline.add_component("retriever", NearlineRetriever(store, mode="hybrid", top_k=5))

    Args:
        document_store: The store.
        mode: "hybrid", "dense" or "lexical".
        filters: Which documents may be found. Optional.
        top_k: Number of documents, 0..10000.
        filter_policy: Whether filters of a call replace these, or both hold.
    """

    def __init__(
        self,
        document_store: NearlineDocumentStore,
        *,
        mode: str = "hybrid",
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        self.document_store = document_store
        self.mode = c.SearchMode(mode)
        self.filters = filters
        self.top_k = top_k
        self.filter_policy = filter_policy

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings of the component."""
        settings: dict[str, Any] = default_to_dict(
            self,
            document_store=self.document_store,
            mode=self.mode.value,
            filters=self.filters,
            top_k=self.top_k,
            filter_policy=self.filter_policy.value,
        )
        return settings

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> NearlineRetriever:
        """Returns the component that has these settings."""
        retriever: NearlineRetriever = default_from_dict(cls, _read_settings(data))
        return retriever

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        query_embedding: list[float] | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """Returns the best documents; what is given counts more than the settings."""
        found = self.document_store.search(
            query,
            query_embedding,
            mode=self.mode,
            filters=apply_filter_policy(self.filter_policy, self.filters, filters),
            top_k=self.top_k if top_k is None else top_k,
        )
        return {"documents": found}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        query_embedding: list[float] | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """See `run`."""
        found = await self.document_store.search_async(
            query,
            query_embedding,
            mode=self.mode,
            filters=apply_filter_policy(self.filter_policy, self.filters, filters),
            top_k=self.top_k if top_k is None else top_k,
        )
        return {"documents": found}


@component
class NearlineEmbeddingRetriever:
    """Retrieves documents by an embedding, of a store with `embedding_dim`.

    Args:
        document_store: The store.
        filters: Which documents may be found. Optional.
        top_k: Number of documents, 0..10000.
        filter_policy: Whether filters of a call replace these, or both hold.
    """

    def __init__(
        self,
        document_store: NearlineDocumentStore,
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        self.document_store = document_store
        self.filters = filters
        self.top_k = top_k
        self.filter_policy = filter_policy

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings of the component."""
        settings: dict[str, Any] = default_to_dict(
            self,
            document_store=self.document_store,
            filters=self.filters,
            top_k=self.top_k,
            filter_policy=self.filter_policy.value,
        )
        return settings

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> NearlineEmbeddingRetriever:
        """Returns the component that has these settings."""
        retriever: NearlineEmbeddingRetriever = default_from_dict(cls, _read_settings(data))
        return retriever

    @component.output_types(documents=list[Document])
    def run(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """Returns the nearest documents; what is given counts more than the settings."""
        found = self.document_store.search(
            query_embedding=query_embedding,
            mode=c.SearchMode.DENSE,
            filters=apply_filter_policy(self.filter_policy, self.filters, filters),
            top_k=self.top_k if top_k is None else top_k,
        )
        return {"documents": found}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """See `run`."""
        found = await self.document_store.search_async(
            query_embedding=query_embedding,
            mode=c.SearchMode.DENSE,
            filters=apply_filter_policy(self.filter_policy, self.filters, filters),
            top_k=self.top_k if top_k is None else top_k,
        )
        return {"documents": found}


def _read_settings(data: dict[str, Any]) -> dict[str, Any]:
    settings = dict(data["init_parameters"])
    store, policy = settings["document_store"], settings.get("filter_policy")
    if isinstance(store, dict):
        settings["document_store"] = NearlineDocumentStore.from_dict(store)
    if isinstance(policy, str):
        settings["filter_policy"] = FilterPolicy.from_str(policy)
    return {**data, "init_parameters": settings}
