"""Options of a build."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TypeAlias

from index_builder.evaluation.retrieval_metrics import JudgedDataset
from index_builder.interactions.recorded_interactions import DeletedUsers, UserAttributes
from index_builder.options.declared_attributes import check_kinds
from index_builder.options.devices import AUTO_DEVICE, check_device
from index_builder.options.training_options import TrainingOptions
from nearline.contract import DEFAULT_COLLECTION, Embedder
from nearline.errors import InvalidRequest
from nearline.items.search_languages import check_search_languages
from nearline.items.search_weights import check_search_weights
from nearline.store.snapshot import PARTITIONS, Store, check_collection
from nearline.v1 import release_pb2, snapshot_pb2
from retrieval.index.lexical.analysers import analyser_of
from retrieval.index.lexical.synonym_rules import Synonyms, check_synonyms
from retrieval.index.lexical.text_analysis import LANGUAGES, check_language

AUTO = "auto"
COSINE = "cosine"
INNER_PRODUCT = "inner_product"
MAX_CHUNK_TOKENS = 100_000

# Judges a published snapshot before its promotion, from the store, its manifest and the embedder of
# the build.
Gate: TypeAlias = Callable[
    [Store, snapshot_pb2.Manifest, Embedder | None], Awaitable[release_pb2.GateVerdict]
]
# Calibrates answers and refusals on a snapshot before its publication, from its folder, its
# manifest and a callback for the number of questions asked.
Calibrate: TypeAlias = Callable[
    [Path, snapshot_pb2.Manifest, Callable[[int], None]], Awaitable[snapshot_pb2.AnswerCard]
]
# Trains the reranker of a snapshot before its publication, and writes its file to the folder; from
# the folder, the manifest and a callback for the percents done. Its weight is 0, without a file, if
# it would make searches no better.
TrainReranker: TypeAlias = Callable[
    [Path, snapshot_pb2.Manifest, Callable[[int], None]], Awaitable[snapshot_pb2.RerankerCard]
]


class Mode(Enum):
    """How an import treats documents of the previous snapshot that it lacks."""

    REPLACE = "replace"
    MERGE = "merge"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkOptions:
    """How documents are cut into chunks.

    max_tokens: Maximum number of tokens to embed at once (title and chunk); 0 disables cutting. The
        default fits a model that reads 256 tokens, including special tokens and estimation error.
        Measured on SciFact train (nDCG@10, MiniLM, overlap 1): uncut 0.660 with 1.0 vectors per
        document; 240 tokens 0.692 with 2.4; 128 tokens 0.705 with 5.5.
    overlap_sentences: Sentences that the next chunk repeats.
    """

    max_tokens: int = 240
    overlap_sentences: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """How vectors are indexed.

    factory: FAISS factory string, or "auto": Flat up to 20,000 vectors in the collection, otherwise
        HNSW32,Flat.
    metric: "cosine" (vectors are scaled to unit length) or "inner_product".
    ef_construction: Width of the graph search while building an HNSW index.
    ef_search: Default width of the graph search.
    nprobe: Default number of lists to probe; 0 means a sixteenth of the lists, at least 8.
    target_recall: With "auto", measure indexes on a sample of the vectors and choose the fastest
        that reaches this recall@10; 0 chooses by size unless memory is limited.
    max_bytes: With "auto", measure indexes and exclude those larger than this over all shards; 0
        disables the limit.
    refine_factor: Candidates that a refine stage rescores per requested result; 0 adapts to the
        codes before it, from 1.5 for 8 bits per number to 10 for 1 bit.
    threads: Threads for building; 0 uses all cores.
    """

    factory: str = AUTO
    metric: str = COSINE
    ef_construction: int = 200
    ef_search: int = 64
    nprobe: int = 0
    refine_factor: float = 0.0
    target_recall: float = 0.0
    max_bytes: int = 0
    threads: int = 0

    @property
    def measures(self) -> bool:
        """Whether the index is chosen by measuring."""
        return self.target_recall > 0 or self.max_bytes > 0

    def check(self) -> None:
        """Raises InvalidRequest if a target is out of range or has no effect."""
        if not 0 <= self.target_recall <= 1:
            raise InvalidRequest(
                f"target_recall is {self.target_recall:g}; 0..1 is allowed", field="target_recall"
            )
        if not 0 <= self.refine_factor <= 1_000:
            raise InvalidRequest(
                f"refine_factor is {self.refine_factor:g}; 0..1,000 is allowed",
                field="refine_factor",
            )
        if self.measures and self.factory != AUTO:
            raise InvalidRequest(
                f"index {self.factory!r} leaves nothing to choose; remove "
                "--target-recall and --max-memory, or use --index auto",
                field="index",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """Options of a build.

    store: Folder or URL of the snapshot store; see `Store.open`.
    device: Trains and builds indexes, and trains factors: auto, cpu, cuda or cuda:N. auto is the
        first GPU if the installed FAISS can use one, otherwise the CPU.
    shards: 1..64.
    golden_queries: Number of sampled queries to store with their exact results.
    seed: Seed of all samples.
    max_bad_rows: Maximum number of malformed rows to leave out before the build fails.
    title_only: Accept documents without text if they have a title.
    attributes: Declared kinds by attribute name: string, int, double, bool or time, with [] for
        lists. Other kinds are inferred from the documents.
    lexical: Index the words of the texts, for lexical and hybrid search.
    language: Language of the stemmer and the stop words, "none" to disable both; see
        `retrieval.index.lexical.text_analysis.LANGUAGES`.
    search_weights: Weight of each field in lexical search: "title", "text", and attributes, which
        are not searched otherwise. If empty, those of the snapshot that the build continues.
    search_languages: Language of attributes with a search weight whose words are not those of
        `language`. If empty, those of the snapshot that the build continues.
    synonyms: Synonyms of words of queries; empty for none. If None, those of the snapshot that the
        build continues.
    popularity: By document id, 0..1; documents of the same title are found in this order. If None,
        it is that of the interactions.
    judged: Queries with judgements for tuning the fusion weight; None uses the default weight.
    train_reranker: Optional; trains a reranker on judged queries.
    calibrate: Optional; calibrates answers on labelled questions.
    training: Interactions to train on; None keeps the models of the previous snapshot.
    deleted_users: Optional; returns when users were deleted, so that their earlier interactions are
        excluded from training.
    user_attributes: Optional; returns the attributes of users, by id.
    mode: Whether documents that the import lacks stay (MERGE) or are removed unless they changed
        after the import time (REPLACE).
    as_of: Import time of new files, timezone-aware; live changes after it take precedence. None
        uses the modification time of each file.
    promote: Make the snapshot current by an alias record.
    gate: Optional; judges the snapshot first. A refused snapshot is not promoted unless forced.
    work_dir: Folder for the state of an interrupted build; None means inside the store, or in the
        cache of an object store.
    on_named: Optional; called in a thread with the id of the snapshot before it is written.
    """

    store: str
    collection: str = DEFAULT_COLLECTION
    device: str = AUTO_DEVICE
    shards: int = 1
    chunks: ChunkOptions = field(default_factory=ChunkOptions)
    index: IndexOptions = field(default_factory=IndexOptions)
    golden_queries: int = 200
    seed: int = 0
    max_bad_rows: int = 0
    title_only: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)
    lexical: bool = True
    language: str = "english"
    search_weights: Mapping[str, float] = field(default_factory=dict)
    search_languages: Mapping[str, str] = field(default_factory=dict)
    synonyms: Synonyms | None = None
    popularity: Mapping[str, float] | None = None
    judged: JudgedDataset | None = None
    train_reranker: TrainReranker | None = None
    calibrate: Calibrate | None = None
    training: TrainingOptions | None = None
    deleted_users: DeletedUsers | None = None
    user_attributes: UserAttributes | None = None
    mode: Mode = Mode.REPLACE
    as_of: datetime | None = None
    promote: bool = True
    gate: Gate | None = None
    work_dir: Path | None = None
    on_named: Callable[[str], None] | None = None

    def check(self) -> None:
        """Raises InvalidRequest if a value is out of range; names the value and the range."""
        check_collection(self.collection)
        for name, value, low, high in (
            ("shards", self.shards, 1, PARTITIONS),
            ("chunk_tokens", self.chunks.max_tokens, 0, MAX_CHUNK_TOKENS),
            ("overlap_sentences", self.chunks.overlap_sentences, 0, 100),
            ("golden_queries", self.golden_queries, 0, 100_000),
            ("max_bad_rows", self.max_bad_rows, 0, 1 << 62),
            ("ef_construction", self.index.ef_construction, 1, 4096),
            ("ef_search", self.index.ef_search, 1, 4096),
            ("nprobe", self.index.nprobe, 0, 65_536),
        ):
            if not low <= value <= high:
                raise InvalidRequest(f"{name} is {value}; {low}..{high} is allowed", field=name)
        check_device(self.device)
        check_kinds(self.attributes)
        check_language(self.language)
        check_search_weights(self.search_weights, self.attributes)
        # Without weights, those of the snapshot that the build continues will be known.
        check_search_languages(self.search_languages, self.search_weights or None, LANGUAGES)
        if self.synonyms is not None and self.synonyms.rules:
            check_synonyms(self.synonyms, analyser_of(self.language))
            if not self.lexical:
                raise InvalidRequest(
                    "synonyms need a lexical index; remove --synonyms or --no-lexical",
                    field="synonyms",
                )
        if self.as_of is not None and self.as_of > datetime.now(UTC):
            raise InvalidRequest(
                f"as_of is {self.as_of.isoformat()}, which is in the future; use a time in the "
                "past",
                field="as_of",
            )
        if self.judged is not None and not self.lexical:
            raise InvalidRequest(
                "tuning needs a lexical index; remove --tune-on or --no-lexical",
                field="tune_on",
            )
        if self.training is not None:
            self.training.check(self.seed)
        self.index.check()
        if self.index.metric not in (COSINE, INNER_PRODUCT):
            raise InvalidRequest(
                f"metric is {self.index.metric!r}; use {COSINE!r} or {INNER_PRODUCT!r}",
                field="metric",
            )
