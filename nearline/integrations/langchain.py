"""A vector store and a retriever for LangChain: `pip install 'nearline[langchain]'`."""

from __future__ import annotations

from typing import Any

from nearline import contract as c
from nearline.integrations.extras import missing_extra
from nearline.integrations.langchain_conversion import LangChainFilter
from nearline.integrations.langchain_store import NearlineVectorStore

try:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
    )
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
    from pydantic import ConfigDict
except ImportError as error:
    raise missing_extra("langchain", error) from error

__all__ = ["NearlineRetriever", "NearlineVectorStore"]


class NearlineRetriever(BaseRetriever):
    """Retrieves documents of a store: `NearlineRetriever(store=store, k=8, mode="hybrid")`.

    Args:
        store: The store.
        k: Number of documents, 1..10000.
        filter: Which documents may be found. Optional.
        mode: "dense", "hybrid" or "lexical". Optional; None takes that of the store.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    store: NearlineVectorStore
    k: int = 4
    filter: Any = None
    mode: c.SearchMode | str | None = None

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: LangChainFilter | None = None,
        mode: c.SearchMode | str | None = None,
    ) -> list[Document]:
        return self.store.similarity_search(
            query,
            self.k if k is None else k,
            filter=self.filter if filter is None else filter,
            mode=mode or self.mode,
        )

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: LangChainFilter | None = None,
        mode: c.SearchMode | str | None = None,
    ) -> list[Document]:
        found: list[Document] = await self.store.asimilarity_search(
            query,
            self.k if k is None else k,
            filter=self.filter if filter is None else filter,
            mode=mode or self.mode,
        )
        return found
