"""Settings of a build, section `index_builder`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from nearline.contract import DEFAULT_COLLECTION
from nearline.errors import InvalidRequest
from nearline.items.search_languages import parse_search_language
from nearline.items.search_weights import parse_search_weight
from nearline.settings import Settings
from nearline.times import in_utc

# Everything else is imported late: `nearline build --help` loads this module for its options.
if TYPE_CHECKING:
    from index_builder.options.build_options import BuildOptions
    from index_builder.readers.columns import DocumentColumns


class IndexBuilderSettings(Settings):
    """Settings of a build, for `nearline build` and `python -m index_builder`."""

    section: ClassVar[str] = "index_builder"

    corpus: str = Field(
        "",
        description="Files and folders to read, separated by commas: .jsonl, .csv, .tsv, .parquet, "
        ".txt, .md, .html, .pdf, or one .npy matrix of vectors.",
    )
    store: str = Field(
        ".nearline/store",
        description="Store of the snapshots: a folder, s3://bucket/prefix, gs://bucket/prefix or "
        "az://container/prefix.",
    )
    collection: str = Field(DEFAULT_COLLECTION, description="Name of the collection.")
    device: str = Field(
        "auto",
        description="Device that trains and builds indexes: auto, cpu, cuda or cuda:N. auto: the "
        "first GPU, if the installed FAISS can use one; otherwise the CPU. Workers that load the "
        "model use the same, unless it is auto.",
    )
    shards: int = Field(1, description="Number of shards, 1..64.")
    index: str = Field(
        "auto",
        description="FAISS factory string; auto: Flat up to 20,000 vectors, else HNSW32,Flat.",
    )
    target_recall: float = Field(
        0.0,
        description="With --index auto: measure indexes on a sample of your vectors, and choose "
        "the fastest that reaches this recall@10; 0: the index is chosen by size.",
    )
    max_memory: str = Field(
        "",
        description="With --index auto: measure indexes, and choose none that is larger than this "
        "over all shards, such as 2GiB; empty: no limit.",
    )
    refine_factor: float = Field(
        0.0,
        description="Candidates that a refine stage scores again per requested hit; 0: chosen by "
        "the bits per number of the first stage.",
    )
    metric: Literal["cosine", "inner_product"] = Field(
        "cosine", description="Similarity measure: cosine or inner_product."
    )
    ef_construction: int = Field(200, description="Width of the graph search while building HNSW.")
    ef_search: int = Field(64, description="Width of the graph search, unless a request names one.")
    nprobe: int = Field(
        0,
        description="Lists to probe, unless a request names a number; 0: a sixteenth of the lists, "
        "at least 8.",
    )
    threads: int = Field(0, ge=0, le=1024, description="Threads for indexing; 0: all cores.")
    id_column: str = Field("", description="Column of the ids; empty: _id or id.")
    title_column: str = Field("", description="Column of the titles; empty: title.")
    text_column: str = Field("", description="Column of the texts; empty: text.")
    vector_column: str = Field(
        "", description="Column of your own vectors; no text is embedded then."
    )
    attribute_columns: str = Field(
        "*",
        description="Columns to keep as attributes, separated by commas; *: all columns without "
        "another role, and *,NAME: that column, too, although it is the text or the title.",
    )
    attributes: str = Field(
        "",
        description="Kinds of attributes: NAME:KIND separated by commas, KIND one of string, int, "
        "double, bool, time, with [] for lists; empty: inferred from the documents.",
    )
    lexical: bool = Field(
        True, description="Index the words of the texts, for lexical and hybrid search."
    )
    language: str = Field(
        "english", description="Language of the stemmer and the stop words; none disables both."
    )
    search_weights: str = Field(
        "",
        description="How much a word counts in keyword search, by field: FIELD=WEIGHT separated by "
        "commas, FIELD one of title, text, or an attribute of texts; empty: title=1,text=1, and "
        "those of the snapshot that a build continues.",
    )
    search_languages: str = Field(
        "",
        description="Language of searched attributes whose words are not those of --language: "
        "FIELD=LANGUAGE separated by commas, FIELD an attribute with a search weight, LANGUAGE "
        "none for words as they are written; empty: those of the snapshot that a build continues.",
    )
    synonyms: str = Field(
        "",
        description="File of synonyms for words of queries: a line is tv, television for words "
        "that stand for one another, or nyc => new york city for one way; an empty file: none; "
        "empty: those of the snapshot that a build continues.",
    )
    tune_on: str = Field(
        "",
        description="Folder in BEIR layout whose judgements tune the weight of hybrid search; "
        "empty: the shipped weight.",
    )
    tune_split: str = Field("train", description="Judgements to tune on: qrels/SPLIT.tsv.")
    chunk_tokens: int = Field(
        240,
        description="Maximum number of tokens to embed at once, title included; longer documents "
        "are cut into chunks. 0 disables cutting.",
    )
    overlap_sentences: int = Field(1, description="Sentences that the next chunk repeats.")
    max_bad_rows: int = Field(0, description="Maximum number of malformed rows to skip.")
    allow_title_only: bool = Field(
        False, description="Accept documents without text if they have a title."
    )
    golden_queries: int = Field(
        200,
        description="Number of sampled queries whose exact results are stored, to measure recall.",
    )
    seed: int = Field(0, ge=0, description="Seed of all samples.")
    mode: Literal["replace", "merge"] = Field(
        "replace",
        description="Served documents that are missing from the corpus are removed (replace) or "
        "kept (merge). Live changes newer than the corpus are kept in both modes.",
    )
    as_of: str = Field(
        "",
        description="Time of the corpus, ISO 8601, UTC by default: live changes after this time "
        "take precedence over the corpus; empty: when each file was last modified.",
    )
    redis: str = Field(
        "",
        description="Redis that holds the change log, redis://host:port/0; required if the "
        "collection has one.",
    )
    learn: bool = Field(
        False,
        description="Train the models of users again, on what the served snapshot was trained on "
        "and what was recorded since in `redis`, or imported; without a corpus, of the served "
        "documents.",
    )
    redis_users: str = Field(
        "", description="Redis that holds users and sessions, if not the one in `redis`."
    )
    promote: bool = Field(True, description="Serve the snapshot if it passes the release gate.")
    force_promote: str = Field(
        "",
        description="Reason to serve the snapshot even if the release gate refuses it; the reason "
        "is recorded.",
    )
    work_dir: str = Field(
        "", description="Folder for the state of an interrupted build; empty: in the store."
    )
    embedding: str = Field(
        "",
        description="Embedding services of one model, host:port separated by commas; they share "
        "the work. With executor ray, they embed only queries; workers load the model of section "
        "`embedding`, which must be the same model.",
    )
    executor: Literal["local", "ray"] = Field(
        "local",
        description="What embeds the documents: the embedding service (local), or the workers of a "
        "Ray cluster (ray).",
    )
    ray_address: str = Field(
        "",
        description="Ray cluster, host:port, or auto for the cluster that this machine belongs to; "
        "empty: a cluster is started on this machine.",
    )
    ray_gpu_share: float = Field(
        1.0,
        description="GPUs of a Ray worker that loads the model: a fraction such as 0.25, which "
        "lets four workers share a GPU, or a whole number; 0: workers use no GPU.",
    )
    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error."
    )

    def paths(self) -> list[Path]:
        """Returns the files and folders to read."""
        return [Path(part) for part in self.corpus.split(",") if part]

    def columns(self) -> DocumentColumns:
        """Returns the column names."""
        from index_builder.options.declared_attributes import (
            TITLE_ONLY_REMEDY,
            chosen_attributes,
            list_names,
        )
        from index_builder.readers.columns import DocumentColumns

        declared = self._declared()
        return DocumentColumns(
            id=self.id_column,
            title=self.title_column,
            text=self.text_column,
            vector=self.vector_column,
            **chosen_attributes(self.attribute_columns),
            declared=tuple(declared),
            lists=list_names(declared),
            needs_text=not self.allow_title_only,
            text_remedy=TITLE_ONLY_REMEDY,
        )

    def _declared(self) -> dict[str, str]:
        from index_builder.options.declared_attributes import declared_kinds

        # `check` refuses unknown kinds.
        return declared_kinds(self.attributes.split(","))

    def options(self) -> BuildOptions:
        """Returns the options of the build.

        Raises: InvalidRequest: a value is out of range, or the judgements cannot be read.
        """
        from index_builder.evaluation import retrieval_metrics
        from index_builder.options.build_options import (
            BuildOptions,
            ChunkOptions,
            IndexOptions,
            Mode,
        )
        from index_builder.options.index_selection import parse_bytes
        from retrieval.index.lexical.synonym_rules import read_synonyms

        options = BuildOptions(
            store=self.store,
            collection=self.collection,
            device=self.device,
            shards=self.shards,
            chunks=ChunkOptions(
                max_tokens=self.chunk_tokens, overlap_sentences=self.overlap_sentences
            ),
            index=IndexOptions(
                factory=self.index,
                metric=self.metric,
                ef_construction=self.ef_construction,
                ef_search=self.ef_search,
                nprobe=self.nprobe,
                refine_factor=self.refine_factor,
                target_recall=self.target_recall,
                max_bytes=parse_bytes(self.max_memory),
                threads=self.threads,
            ),
            golden_queries=self.golden_queries,
            seed=self.seed,
            max_bad_rows=self.max_bad_rows,
            title_only=self.allow_title_only,
            attributes=self._declared(),
            lexical=self.lexical,
            language=self.language,
            search_weights=dict(
                parse_search_weight(part) for part in self.search_weights.split(",") if part.strip()
            ),
            search_languages=dict(
                parse_search_language(part)
                for part in self.search_languages.split(",")
                if part.strip()
            ),
            synonyms=read_synonyms(Path(self.synonyms)) if self.synonyms else None,
            mode=Mode(self.mode),
            as_of=_parse_time(self.as_of) if self.as_of else None,
            judged=retrieval_metrics.load(Path(self.tune_on), self.tune_split)
            if self.tune_on
            else None,
            promote=self.promote,
            work_dir=Path(self.work_dir) if self.work_dir else None,
        )
        options.check()
        return options


def _parse_time(text: str) -> datetime:
    try:
        return in_utc(datetime.fromisoformat(text))
    except ValueError as error:
        raise InvalidRequest(
            f"as_of is {text!r}, which is not a time; use one like 2026-11-25T08:30:00Z",
            field="as_of",
        ) from error
