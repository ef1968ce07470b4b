"""What a build is asked for, what it reads, and what it gives back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TypeAlias

from index_builder.evaluation.retrieval_metrics import JudgedDataset
from index_builder.interactions.recorded_interactions import DeletedUsers
from index_builder.options.training_options import TrainingOptions
from nearline.attributes import KINDS
from nearline.contract import DEFAULT_COLLECTION, Embedder
from nearline.errors import InvalidRequest
from nearline.snapshot import PARTITIONS, Store, check_collection
from nearline.v1 import release_pb2, snapshot_pb2
from retrieval.index.lexical.text_analysis import check_language

AUTO = "auto"
COSINE = "cosine"
INNER_PRODUCT = "inner_product"
MAX_CHUNK_TOKENS = 100_000

# Judges a snapshot that is published and not promoted yet: told of the store, its manifest, and the
# embedder of the build.
Gate: TypeAlias = Callable[
    [Store, snapshot_pb2.Manifest, Embedder | None], Awaitable[release_pb2.GateVerdict]
]
# Learns how to answer and refuse from a snapshot that is not published yet: told of its folder, its
# manifest, and whom to tell of the questions asked.
Calibrate: TypeAlias = Callable[
    [Path, snapshot_pb2.Manifest, Callable[[int], None]], Awaitable[snapshot_pb2.AnswerCard]
]


class Mode(Enum):
    """What becomes of the documents that the snapshot before has, and an import lacks."""

    REPLACE = "replace"
    MERGE = "merge"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkOptions:
    """How documents are cut.

    max_tokens: Most tokens in what is embedded (title and chunk); 0: documents are not cut. The
        default fits a model that reads 256, special tokens and errors of the estimate included.
        Measured on SciFact train (nDCG@10, MiniLM, overlap 1): not cut 0.660 with 1.0 vectors a
        document; 240 0.692 with 2.4; 128 0.705 with 5.5.
    overlap_sentences: Sentences that the next chunk repeats.
    """

    max_tokens: int = 240
    overlap_sentences: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """How vectors are indexed.

    factory: FAISS factory string, or "auto": Flat up to 20,000 vectors in the collection, else
        HNSW32,Flat.
    metric: "cosine" (vectors are scaled to unit length) or "inner_product".
    ef_construction: Width of the graph search while an HNSW index is built.
    ef_search: Width of the graph search where a request names none.
    nprobe: Lists probed where a request names none; 0: a sixteenth of the lists, at least 8.
    target_recall: "auto" measures indexes on a sample of the vectors and takes the fastest that
        reaches this recall@10; 0: it goes by size, unless there is a limit on memory.
    max_bytes: "auto" measures, and takes none that would be larger over all shards; 0: no limit.
    refine_factor: Candidates that a refine stage scores again per place asked for; 0: as many as
        the codes before it need, 1.5 for 8 bits a number to 10 for 1 bit.
    threads: Threads while building; 0: all cores.
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
        """True where the index is to be chosen by measuring."""
        return self.target_recall > 0 or self.max_bytes > 0

    def check(self) -> None:
        """Raises InvalidRequest where targets are out of range, or of no use."""
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
                f"index {self.factory!r} is given, so there is nothing to choose; leave out "
                "--target-recall and --max-memory, or use --index auto",
                field="index",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What a build makes of its documents.

    store: Folder or URL of the snapshot store, see `Store.open`.
    shards: 1..64.
    golden_queries: Sampled queries with exact answers.
    seed: Seed of every sample.
    max_bad_rows: Malformed rows that are left out rather than fail the build.
    title_only: Take documents whose text is empty where they have a title.
    attributes: Declared kinds by attribute name: string, int, double, bool or time. Those of the
        others are found in the documents.
    lexical: Index the words of the texts, for lexical and hybrid search.
    language: Of the stemmer and the stop words, "none" for neither; see
        `retrieval.index.lexical.text_analysis.LANGUAGES`.
    judged: Queries with judgements to tune the weight of fusion on; None: the default weight.
    calibrate: Learns from labelled questions what the manifest says of answers; None: nothing.
    learning: Interactions to learn from; None: what the snapshot before learned is kept.
    erased: Tells when users were deleted; what they did before is not learned; None: nobody was.
    mode: Whether documents that the import lacks stay (MERGE) or go, unless they were changed
        after its place (REPLACE).
    as_of: Aware place in time of what is imported for the first time, among the live changes:
        those after it win; None: when each file was last modified.
    promote: Make an alias record that names the new snapshot.
    gate: Asked before that: what neither passes nor is forced is not promoted. None: nobody is.
    work_dir: Folder for what a killed build needs to go on; None: inside the store, or the cache
        of an object store.
    """

    store: str
    collection: str = DEFAULT_COLLECTION
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
    judged: JudgedDataset | None = None
    calibrate: Calibrate | None = None
    training: TrainingOptions | None = None
    deleted_users: DeletedUsers | None = None
    mode: Mode = Mode.REPLACE
    as_of: datetime | None = None
    promote: bool = True
    gate: Gate | None = None
    work_dir: Path | None = None

    def check(self) -> None:
        """Raises InvalidRequest where a value is out of range; names value and range."""
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
        for name, kind in self.attributes.items():
            if not name or kind not in KINDS:
                raise InvalidRequest(
                    f"attribute {name!r} is declared of kind {kind!r}; use NAME:KIND, where KIND "
                    f"is one of {', '.join(KINDS)}",
                    field="attributes",
                )
        check_language(self.language)
        if self.as_of is not None and self.as_of > datetime.now(UTC):
            raise InvalidRequest(
                f"as_of is {self.as_of.isoformat()}, which is yet to come; give a time that has "
                "passed",
                field="as_of",
            )
        if self.judged is not None and not self.lexical:
            raise InvalidRequest(
                "without a lexical index there is nothing to tune; leave out --tune-on or "
                "--no-lexical",
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
