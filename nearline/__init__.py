"""Nearline: recommendation and RAG retrieval over your own catalogue and documents.

Names are imported when they are first used: services and health probes, which import modules of
this package, need few of them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nearline.clients import (
        AdminClient,
        AsyncClient,
        EmbeddingClient,
        GenerationClient,
        IngestClient,
        RetrievalClient,
    )
    from nearline.clients.blocking import (
        BlockingAdminClient,
        BlockingEmbeddingClient,
        BlockingGenerationClient,
        BlockingIngestClient,
        BlockingRetrievalClient,
        Client,
    )
    from nearline.contract import (
        Answer,
        Audience,
        BulkWriteReply,
        Citation,
        CitationCheck,
        CountReply,
        Coverage,
        DeadLetter,
        DeletionReceipt,
        Delta,
        Done,
        EmbedderInfo,
        Embeddings,
        EntailmentScores,
        Evidence,
        Facet,
        FacetCounts,
        FilteredDeletion,
        FilterPlan,
        Grouping,
        Hit,
        HitLevel,
        HitList,
        IngestOutcome,
        IngestResult,
        Interaction,
        Item,
        ItemsPage,
        ItemsReply,
        Job,
        JobPriority,
        JobState,
        Lane,
        PayloadField,
        Query,
        Question,
        QueueState,
        Recommendation,
        RecommendOptions,
        RecommendReply,
        RecordReply,
        Refusal,
        RefusalReason,
        ReplyInfo,
        SearchMode,
        SearchOptions,
        SearchReply,
        SourceFile,
        SourceUrl,
        TextRole,
        UserRecord,
        Verdict,
        VerifyReply,
        WhyNot,
        WriteOutcome,
        WriteReply,
        WriteResult,
    )
    from nearline.errors import NearlineError

__version__ = "0.2.0"

__all__ = [
    "AdminClient",
    "Answer",
    "AsyncClient",
    "Audience",
    "BlockingAdminClient",
    "BlockingEmbeddingClient",
    "BlockingGenerationClient",
    "BlockingIngestClient",
    "BlockingRetrievalClient",
    "BulkWriteReply",
    "Citation",
    "CitationCheck",
    "Client",
    "CountReply",
    "Coverage",
    "DeadLetter",
    "DeletionReceipt",
    "Delta",
    "Done",
    "EmbedderInfo",
    "EmbeddingClient",
    "Embeddings",
    "EntailmentScores",
    "Evidence",
    "Facet",
    "FacetCounts",
    "FilterPlan",
    "FilteredDeletion",
    "GenerationClient",
    "Grouping",
    "Hit",
    "HitLevel",
    "HitList",
    "IngestClient",
    "IngestOutcome",
    "IngestResult",
    "Interaction",
    "Item",
    "ItemsPage",
    "ItemsReply",
    "Job",
    "JobPriority",
    "JobState",
    "Lane",
    "NearlineError",
    "PayloadField",
    "Query",
    "Question",
    "QueueState",
    "RecommendOptions",
    "RecommendReply",
    "Recommendation",
    "RecordReply",
    "Refusal",
    "RefusalReason",
    "ReplyInfo",
    "RetrievalClient",
    "SearchMode",
    "SearchOptions",
    "SearchReply",
    "SourceFile",
    "SourceUrl",
    "TextRole",
    "UserRecord",
    "Verdict",
    "VerifyReply",
    "WhyNot",
    "WriteOutcome",
    "WriteReply",
    "WriteResult",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Imports a public name from the first of these modules that has it."""
        from importlib import import_module

        if name in __all__:
            for module_name in ("errors", "contract", "clients", "clients.blocking"):
                module = import_module(f"nearline.{module_name}")
                if hasattr(module, name):
                    globals()[name] = found = getattr(module, name)
                    return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=None)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
