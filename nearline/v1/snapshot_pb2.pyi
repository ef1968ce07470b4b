import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from nearline.v1 import release_pb2 as _release_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Manifest(_message.Message):
    __slots__ = ("schema_version", "snapshot_id", "collection", "create_time", "nearline_version", "faiss_version", "sources", "embedder", "dim", "metric", "index_factory", "default_ef_search", "default_nprobe", "chunking", "shards", "documents", "chunks", "max_chunks_per_document", "fusion", "change_log_id", "watermark", "files", "quality", "attributes", "lexical", "answers", "parent_snapshot_id", "behaviour", "models", "reranker")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    NEARLINE_VERSION_FIELD_NUMBER: _ClassVar[int]
    FAISS_VERSION_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    EMBEDDER_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    INDEX_FACTORY_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_EF_SEARCH_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_NPROBE_FIELD_NUMBER: _ClassVar[int]
    CHUNKING_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    MAX_CHUNKS_PER_DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_LOG_ID_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    LEXICAL_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    PARENT_SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    BEHAVIOUR_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    RERANKER_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    snapshot_id: str
    collection: str
    create_time: _timestamp_pb2.Timestamp
    nearline_version: str
    faiss_version: str
    sources: _containers.RepeatedCompositeFieldContainer[Source]
    embedder: EmbedderCard
    dim: int
    metric: str
    index_factory: str
    default_ef_search: int
    default_nprobe: int
    chunking: Chunking
    shards: _containers.RepeatedCompositeFieldContainer[ShardEntry]
    documents: int
    chunks: int
    max_chunks_per_document: int
    fusion: Fusion
    change_log_id: str
    watermark: bytes
    files: _containers.RepeatedCompositeFieldContainer[FileEntry]
    quality: QualitySummary
    attributes: _containers.RepeatedCompositeFieldContainer[AttributeField]
    lexical: LexicalCard
    answers: AnswerCard
    parent_snapshot_id: str
    behaviour: BehaviourCard
    models: _containers.RepeatedCompositeFieldContainer[ModelRef]
    reranker: RerankerCard
    def __init__(self, schema_version: _Optional[int] = ..., snapshot_id: _Optional[str] = ..., collection: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., nearline_version: _Optional[str] = ..., faiss_version: _Optional[str] = ..., sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ..., embedder: _Optional[_Union[EmbedderCard, _Mapping]] = ..., dim: _Optional[int] = ..., metric: _Optional[str] = ..., index_factory: _Optional[str] = ..., default_ef_search: _Optional[int] = ..., default_nprobe: _Optional[int] = ..., chunking: _Optional[_Union[Chunking, _Mapping]] = ..., shards: _Optional[_Iterable[_Union[ShardEntry, _Mapping]]] = ..., documents: _Optional[int] = ..., chunks: _Optional[int] = ..., max_chunks_per_document: _Optional[int] = ..., fusion: _Optional[_Union[Fusion, _Mapping]] = ..., change_log_id: _Optional[str] = ..., watermark: _Optional[bytes] = ..., files: _Optional[_Iterable[_Union[FileEntry, _Mapping]]] = ..., quality: _Optional[_Union[QualitySummary, _Mapping]] = ..., attributes: _Optional[_Iterable[_Union[AttributeField, _Mapping]]] = ..., lexical: _Optional[_Union[LexicalCard, _Mapping]] = ..., answers: _Optional[_Union[AnswerCard, _Mapping]] = ..., parent_snapshot_id: _Optional[str] = ..., behaviour: _Optional[_Union[BehaviourCard, _Mapping]] = ..., models: _Optional[_Iterable[_Union[ModelRef, _Mapping]]] = ..., reranker: _Optional[_Union[RerankerCard, _Mapping]] = ...) -> None: ...

class RerankerCard(_message.Message):
    __slots__ = ("fingerprint", "weight", "candidates", "queries", "held_out_queries", "search_ndcg_at_10", "reranked_ndcg_at_10")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_QUERIES_FIELD_NUMBER: _ClassVar[int]
    SEARCH_NDCG_AT_10_FIELD_NUMBER: _ClassVar[int]
    RERANKED_NDCG_AT_10_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    weight: float
    candidates: int
    queries: int
    held_out_queries: int
    search_ndcg_at_10: float
    reranked_ndcg_at_10: float
    def __init__(self, fingerprint: _Optional[str] = ..., weight: _Optional[float] = ..., candidates: _Optional[int] = ..., queries: _Optional[int] = ..., held_out_queries: _Optional[int] = ..., search_ndcg_at_10: _Optional[float] = ..., reranked_ndcg_at_10: _Optional[float] = ...) -> None: ...

class ModelRef(_message.Message):
    __slots__ = ("kind", "name", "version", "fingerprint")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    version: int
    fingerprint: str
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[int] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class BehaviourCard(_message.Message):
    __slots__ = ("factors_id", "interactions", "users", "items", "newest_time", "blends", "kind_weights", "popularity_table", "similar_debias", "recorded", "comparisons", "segments")
    class KindWeightsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    FACTORS_ID_FIELD_NUMBER: _ClassVar[int]
    INTERACTIONS_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEWEST_TIME_FIELD_NUMBER: _ClassVar[int]
    BLENDS_FIELD_NUMBER: _ClassVar[int]
    KIND_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    POPULARITY_TABLE_FIELD_NUMBER: _ClassVar[int]
    SIMILAR_DEBIAS_FIELD_NUMBER: _ClassVar[int]
    RECORDED_FIELD_NUMBER: _ClassVar[int]
    COMPARISONS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    factors_id: str
    interactions: int
    users: int
    items: int
    newest_time: _timestamp_pb2.Timestamp
    blends: _containers.RepeatedCompositeFieldContainer[BlendCard]
    kind_weights: _containers.ScalarMap[str, float]
    popularity_table: str
    similar_debias: DebiasCard
    recorded: int
    comparisons: _containers.RepeatedCompositeFieldContainer[ComparisonCard]
    segments: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, factors_id: _Optional[str] = ..., interactions: _Optional[int] = ..., users: _Optional[int] = ..., items: _Optional[int] = ..., newest_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., blends: _Optional[_Iterable[_Union[BlendCard, _Mapping]]] = ..., kind_weights: _Optional[_Mapping[str, float]] = ..., popularity_table: _Optional[str] = ..., similar_debias: _Optional[_Union[DebiasCard, _Mapping]] = ..., recorded: _Optional[int] = ..., comparisons: _Optional[_Iterable[_Union[ComparisonCard, _Mapping]]] = ..., segments: _Optional[_Iterable[str]] = ...) -> None: ...

class ComparisonCard(_message.Message):
    __slots__ = ("against", "users", "ndcg", "against_ndcg", "gain_low", "gain_high")
    AGAINST_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    NDCG_FIELD_NUMBER: _ClassVar[int]
    AGAINST_NDCG_FIELD_NUMBER: _ClassVar[int]
    GAIN_LOW_FIELD_NUMBER: _ClassVar[int]
    GAIN_HIGH_FIELD_NUMBER: _ClassVar[int]
    against: str
    users: int
    ndcg: float
    against_ndcg: float
    gain_low: float
    gain_high: float
    def __init__(self, against: _Optional[str] = ..., users: _Optional[int] = ..., ndcg: _Optional[float] = ..., against_ndcg: _Optional[float] = ..., gain_low: _Optional[float] = ..., gain_high: _Optional[float] = ...) -> None: ...

class DebiasCard(_message.Message):
    __slots__ = ("value", "users", "ndcg", "undiscounted_ndcg", "novelty", "undiscounted_novelty", "coverage", "undiscounted_coverage", "fixed")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    NDCG_FIELD_NUMBER: _ClassVar[int]
    UNDISCOUNTED_NDCG_FIELD_NUMBER: _ClassVar[int]
    NOVELTY_FIELD_NUMBER: _ClassVar[int]
    UNDISCOUNTED_NOVELTY_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    UNDISCOUNTED_COVERAGE_FIELD_NUMBER: _ClassVar[int]
    FIXED_FIELD_NUMBER: _ClassVar[int]
    value: float
    users: int
    ndcg: float
    undiscounted_ndcg: float
    novelty: float
    undiscounted_novelty: float
    coverage: float
    undiscounted_coverage: float
    fixed: bool
    def __init__(self, value: _Optional[float] = ..., users: _Optional[int] = ..., ndcg: _Optional[float] = ..., undiscounted_ndcg: _Optional[float] = ..., novelty: _Optional[float] = ..., undiscounted_novelty: _Optional[float] = ..., coverage: _Optional[float] = ..., undiscounted_coverage: _Optional[float] = ..., fixed: _Optional[bool] = ...) -> None: ...

class BlendCard(_message.Message):
    __slots__ = ("repeats", "parts", "split", "k", "validation_ndcg", "alone", "ranker", "debias")
    class AloneEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    REPEATS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_NDCG_FIELD_NUMBER: _ClassVar[int]
    ALONE_FIELD_NUMBER: _ClassVar[int]
    RANKER_FIELD_NUMBER: _ClassVar[int]
    DEBIAS_FIELD_NUMBER: _ClassVar[int]
    repeats: bool
    parts: _containers.RepeatedCompositeFieldContainer[BlendPart]
    split: str
    k: int
    validation_ndcg: float
    alone: _containers.ScalarMap[str, float]
    ranker: RankerCard
    debias: DebiasCard
    def __init__(self, repeats: _Optional[bool] = ..., parts: _Optional[_Iterable[_Union[BlendPart, _Mapping]]] = ..., split: _Optional[str] = ..., k: _Optional[int] = ..., validation_ndcg: _Optional[float] = ..., alone: _Optional[_Mapping[str, float]] = ..., ranker: _Optional[_Union[RankerCard, _Mapping]] = ..., debias: _Optional[_Union[DebiasCard, _Mapping]] = ...) -> None: ...

class RankerCard(_message.Message):
    __slots__ = ("kept", "sources", "features", "trees", "settings", "since_newest", "blend_weight", "weight", "validation_ndcg", "blend_ndcg", "gain_low", "gain_high", "validation_users", "lists", "positives")
    KEPT_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    TREES_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    SINCE_NEWEST_FIELD_NUMBER: _ClassVar[int]
    BLEND_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_NDCG_FIELD_NUMBER: _ClassVar[int]
    BLEND_NDCG_FIELD_NUMBER: _ClassVar[int]
    GAIN_LOW_FIELD_NUMBER: _ClassVar[int]
    GAIN_HIGH_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_USERS_FIELD_NUMBER: _ClassVar[int]
    LISTS_FIELD_NUMBER: _ClassVar[int]
    POSITIVES_FIELD_NUMBER: _ClassVar[int]
    kept: bool
    sources: _containers.RepeatedCompositeFieldContainer[BlendPart]
    features: _containers.RepeatedScalarFieldContainer[str]
    trees: int
    settings: str
    since_newest: bool
    blend_weight: float
    weight: float
    validation_ndcg: float
    blend_ndcg: float
    gain_low: float
    gain_high: float
    validation_users: int
    lists: int
    positives: int
    def __init__(self, kept: _Optional[bool] = ..., sources: _Optional[_Iterable[_Union[BlendPart, _Mapping]]] = ..., features: _Optional[_Iterable[str]] = ..., trees: _Optional[int] = ..., settings: _Optional[str] = ..., since_newest: _Optional[bool] = ..., blend_weight: _Optional[float] = ..., weight: _Optional[float] = ..., validation_ndcg: _Optional[float] = ..., blend_ndcg: _Optional[float] = ..., gain_low: _Optional[float] = ..., gain_high: _Optional[float] = ..., validation_users: _Optional[int] = ..., lists: _Optional[int] = ..., positives: _Optional[int] = ...) -> None: ...

class BlendPart(_message.Message):
    __slots__ = ("model", "settings", "weight", "table", "tau", "floor", "days", "newest", "popularity")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    TAU_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    DAYS_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    POPULARITY_FIELD_NUMBER: _ClassVar[int]
    model: str
    settings: str
    weight: float
    table: str
    tau: float
    floor: float
    days: float
    newest: int
    popularity: float
    def __init__(self, model: _Optional[str] = ..., settings: _Optional[str] = ..., weight: _Optional[float] = ..., table: _Optional[str] = ..., tau: _Optional[float] = ..., floor: _Optional[float] = ..., days: _Optional[float] = ..., newest: _Optional[int] = ..., popularity: _Optional[float] = ...) -> None: ...

class AttributeField(_message.Message):
    __slots__ = ("name", "kind", "is_list", "inferred")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[AttributeField.Kind]
        KIND_STRING: _ClassVar[AttributeField.Kind]
        KIND_INT: _ClassVar[AttributeField.Kind]
        KIND_DOUBLE: _ClassVar[AttributeField.Kind]
        KIND_BOOL: _ClassVar[AttributeField.Kind]
        KIND_TIME: _ClassVar[AttributeField.Kind]
    KIND_UNSPECIFIED: AttributeField.Kind
    KIND_STRING: AttributeField.Kind
    KIND_INT: AttributeField.Kind
    KIND_DOUBLE: AttributeField.Kind
    KIND_BOOL: AttributeField.Kind
    KIND_TIME: AttributeField.Kind
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    IS_LIST_FIELD_NUMBER: _ClassVar[int]
    INFERRED_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: AttributeField.Kind
    is_list: bool
    inferred: bool
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[AttributeField.Kind, str]] = ..., is_list: _Optional[bool] = ..., inferred: _Optional[bool] = ...) -> None: ...

class LexicalCard(_message.Message):
    __slots__ = ("language", "k1", "b", "mean_length", "chunks", "words", "weights", "synonym_rules", "languages")
    class WeightsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class LanguagesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    K1_FIELD_NUMBER: _ClassVar[int]
    B_FIELD_NUMBER: _ClassVar[int]
    MEAN_LENGTH_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    SYNONYM_RULES_FIELD_NUMBER: _ClassVar[int]
    LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    language: str
    k1: float
    b: float
    mean_length: float
    chunks: int
    words: int
    weights: _containers.ScalarMap[str, float]
    synonym_rules: int
    languages: _containers.ScalarMap[str, str]
    def __init__(self, language: _Optional[str] = ..., k1: _Optional[float] = ..., b: _Optional[float] = ..., mean_length: _Optional[float] = ..., chunks: _Optional[int] = ..., words: _Optional[int] = ..., weights: _Optional[_Mapping[str, float]] = ..., synonym_rules: _Optional[int] = ..., languages: _Optional[_Mapping[str, str]] = ...) -> None: ...

class AnswerCard(_message.Message):
    __slots__ = ("sentences", "topic", "evidence", "topic_threshold", "evidence_threshold", "target_risk", "questions", "answerable", "topic_auroc", "evidence_auroc", "coverage", "risk")
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    TOPIC_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    TARGET_RISK_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    ANSWERABLE_FIELD_NUMBER: _ClassVar[int]
    TOPIC_AUROC_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_AUROC_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    RISK_FIELD_NUMBER: _ClassVar[int]
    sentences: LogisticModel
    topic: LogisticModel
    evidence: LogisticModel
    topic_threshold: float
    evidence_threshold: float
    target_risk: float
    questions: int
    answerable: int
    topic_auroc: float
    evidence_auroc: float
    coverage: float
    risk: float
    def __init__(self, sentences: _Optional[_Union[LogisticModel, _Mapping]] = ..., topic: _Optional[_Union[LogisticModel, _Mapping]] = ..., evidence: _Optional[_Union[LogisticModel, _Mapping]] = ..., topic_threshold: _Optional[float] = ..., evidence_threshold: _Optional[float] = ..., target_risk: _Optional[float] = ..., questions: _Optional[int] = ..., answerable: _Optional[int] = ..., topic_auroc: _Optional[float] = ..., evidence_auroc: _Optional[float] = ..., coverage: _Optional[float] = ..., risk: _Optional[float] = ...) -> None: ...

class LogisticModel(_message.Message):
    __slots__ = ("terms", "bias")
    TERMS_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    terms: _containers.RepeatedCompositeFieldContainer[LogisticTerm]
    bias: float
    def __init__(self, terms: _Optional[_Iterable[_Union[LogisticTerm, _Mapping]]] = ..., bias: _Optional[float] = ...) -> None: ...

class LogisticTerm(_message.Message):
    __slots__ = ("name", "weight", "mean", "scale")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    name: str
    weight: float
    mean: float
    scale: float
    def __init__(self, name: _Optional[str] = ..., weight: _Optional[float] = ..., mean: _Optional[float] = ..., scale: _Optional[float] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("uri", "sha256", "documents", "bad_rows", "import_time")
    URI_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    BAD_ROWS_FIELD_NUMBER: _ClassVar[int]
    IMPORT_TIME_FIELD_NUMBER: _ClassVar[int]
    uri: str
    sha256: str
    documents: int
    bad_rows: int
    import_time: _timestamp_pb2.Timestamp
    def __init__(self, uri: _Optional[str] = ..., sha256: _Optional[str] = ..., documents: _Optional[int] = ..., bad_rows: _Optional[int] = ..., import_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class EmbedderCard(_message.Message):
    __slots__ = ("model", "fingerprint", "backend")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    model: str
    fingerprint: str
    backend: str
    def __init__(self, model: _Optional[str] = ..., fingerprint: _Optional[str] = ..., backend: _Optional[str] = ...) -> None: ...

class Chunking(_message.Message):
    __slots__ = ("max_tokens", "overlap_sentences")
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_SENTENCES_FIELD_NUMBER: _ClassVar[int]
    max_tokens: int
    overlap_sentences: int
    def __init__(self, max_tokens: _Optional[int] = ..., overlap_sentences: _Optional[int] = ...) -> None: ...

class ShardEntry(_message.Message):
    __slots__ = ("shard", "partitions", "documents", "chunks")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    shard: int
    partitions: _containers.RepeatedScalarFieldContainer[int]
    documents: int
    chunks: int
    def __init__(self, shard: _Optional[int] = ..., partitions: _Optional[_Iterable[int]] = ..., documents: _Optional[int] = ..., chunks: _Optional[int] = ...) -> None: ...

class Fusion(_message.Message):
    __slots__ = ("dense_weight", "normalisation", "dense_constant", "candidates", "origin")
    DENSE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    NORMALISATION_FIELD_NUMBER: _ClassVar[int]
    DENSE_CONSTANT_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    dense_weight: float
    normalisation: str
    dense_constant: float
    candidates: int
    origin: str
    def __init__(self, dense_weight: _Optional[float] = ..., normalisation: _Optional[str] = ..., dense_constant: _Optional[float] = ..., candidates: _Optional[int] = ..., origin: _Optional[str] = ...) -> None: ...

class FileEntry(_message.Message):
    __slots__ = ("path", "bytes", "sha256")
    PATH_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    path: str
    bytes: int
    sha256: str
    def __init__(self, path: _Optional[str] = ..., bytes: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class QualitySummary(_message.Message):
    __slots__ = ("queries", "recall_at_10", "tuning_queries", "tuning_ndcg_at_10")
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    RECALL_AT_10_FIELD_NUMBER: _ClassVar[int]
    TUNING_QUERIES_FIELD_NUMBER: _ClassVar[int]
    TUNING_NDCG_AT_10_FIELD_NUMBER: _ClassVar[int]
    queries: int
    recall_at_10: float
    tuning_queries: int
    tuning_ndcg_at_10: float
    def __init__(self, queries: _Optional[int] = ..., recall_at_10: _Optional[float] = ..., tuning_queries: _Optional[int] = ..., tuning_ndcg_at_10: _Optional[float] = ...) -> None: ...

class AliasRecord(_message.Message):
    __slots__ = ("epoch", "current", "canary", "canary_share", "who", "why", "create_time", "rollback_to_epoch", "rollout", "gate", "dropped")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    CANARY_SHARE_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_TO_EPOCH_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    current: str
    canary: str
    canary_share: float
    who: str
    why: str
    create_time: _timestamp_pb2.Timestamp
    rollback_to_epoch: int
    rollout: _release_pb2.Rollout
    gate: _release_pb2.GateVerdict
    dropped: bool
    def __init__(self, epoch: _Optional[int] = ..., current: _Optional[str] = ..., canary: _Optional[str] = ..., canary_share: _Optional[float] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., rollback_to_epoch: _Optional[int] = ..., rollout: _Optional[_Union[_release_pb2.Rollout, _Mapping]] = ..., gate: _Optional[_Union[_release_pb2.GateVerdict, _Mapping]] = ..., dropped: _Optional[bool] = ...) -> None: ...
