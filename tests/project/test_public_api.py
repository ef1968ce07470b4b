"""Tests of the public API: a user imports these names, and none of the engines behind them."""

from __future__ import annotations

import subprocess
import sys

import nearline

PUBLIC = [
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
ENGINES = (
    "faiss torch obstore redis pymilvus openvino transformers typer rich pyarrow pandas narwhals "
    "prometheus_client"
)


def _loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_package_exports_these_names() -> None:
    assert sorted(nearline.__all__) == PUBLIC
    assert all(hasattr(nearline, name) for name in PUBLIC)


def test_a_client_loads_no_engine() -> None:
    loaded = _loaded_after("from nearline import Client")
    assert loaded & set(ENGINES.split()) == set()


def test_the_command_line_loads_no_engine_before_a_command_runs() -> None:
    loaded = _loaded_after(
        "import nearline_cli.commands.search, nearline_cli.commands.build, nearline_cli.commands.up"
    )
    engines = (
        "faiss torch obstore redis pymilvus openvino transformers pyarrow psutil "
        "sentence_transformers"
    )
    assert loaded & set(engines.split()) == set()


def test_the_command_line_starts_at_once() -> None:
    # A count, since seconds differ between machines: its 150 modules take 0.1 s of one core, which
    # completion spends at every key.
    code = "import nearline_cli.app, sys; print(len(sys.modules), 'numpy' in sys.modules)"
    count, numpy = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert (int(count) < 250, numpy) == (True, "False")
