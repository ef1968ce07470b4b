import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from nearline.v1 import retrieval_pb2 as _retrieval_pb2
from nearline.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SearchShardRequest(_message.Message):
    __slots__ = ("collection", "snapshot_id", "shard", "vectors", "options", "texts")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    snapshot_id: str
    shard: int
    vectors: _types_pb2.Vectors
    options: _retrieval_pb2.SearchOptions
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, collection: _Optional[str] = ..., snapshot_id: _Optional[str] = ..., shard: _Optional[int] = ..., vectors: _Optional[_Union[_types_pb2.Vectors, _Mapping]] = ..., options: _Optional[_Union[_retrieval_pb2.SearchOptions, _Mapping]] = ..., texts: _Optional[_Iterable[str]] = ...) -> None: ...

class ShardHits(_message.Message):
    __slots__ = ("ids", "scores", "chunks", "starts", "ends", "payloads", "lexical_scores", "lexical_chunks", "lexical_starts", "lexical_ends", "groups", "plan", "terms", "lexical_titles", "boosts", "title_scores", "lexical_title_score", "cost", "fallback")
    IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    STARTS_FIELD_NUMBER: _ClassVar[int]
    ENDS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    LEXICAL_SCORES_FIELD_NUMBER: _ClassVar[int]
    LEXICAL_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    LEXICAL_STARTS_FIELD_NUMBER: _ClassVar[int]
    LEXICAL_ENDS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    LEXICAL_TITLES_FIELD_NUMBER: _ClassVar[int]
    BOOSTS_FIELD_NUMBER: _ClassVar[int]
    TITLE_SCORES_FIELD_NUMBER: _ClassVar[int]
    LEXICAL_TITLE_SCORE_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    scores: _containers.RepeatedScalarFieldContainer[float]
    chunks: _containers.RepeatedScalarFieldContainer[int]
    starts: _containers.RepeatedScalarFieldContainer[int]
    ends: _containers.RepeatedScalarFieldContainer[int]
    payloads: _containers.RepeatedCompositeFieldContainer[HitPayload]
    lexical_scores: _containers.RepeatedScalarFieldContainer[float]
    lexical_chunks: _containers.RepeatedScalarFieldContainer[int]
    lexical_starts: _containers.RepeatedScalarFieldContainer[int]
    lexical_ends: _containers.RepeatedScalarFieldContainer[int]
    groups: _containers.RepeatedCompositeFieldContainer[_types_pb2.Value]
    plan: _retrieval_pb2.FilterPlan
    terms: _containers.RepeatedCompositeFieldContainer[_retrieval_pb2.Term]
    lexical_titles: _containers.RepeatedScalarFieldContainer[float]
    boosts: _containers.RepeatedScalarFieldContainer[float]
    title_scores: _containers.RepeatedScalarFieldContainer[float]
    lexical_title_score: float
    cost: _types_pb2.SearchCost
    fallback: str
    def __init__(self, ids: _Optional[_Iterable[str]] = ..., scores: _Optional[_Iterable[float]] = ..., chunks: _Optional[_Iterable[int]] = ..., starts: _Optional[_Iterable[int]] = ..., ends: _Optional[_Iterable[int]] = ..., payloads: _Optional[_Iterable[_Union[HitPayload, _Mapping]]] = ..., lexical_scores: _Optional[_Iterable[float]] = ..., lexical_chunks: _Optional[_Iterable[int]] = ..., lexical_starts: _Optional[_Iterable[int]] = ..., lexical_ends: _Optional[_Iterable[int]] = ..., groups: _Optional[_Iterable[_Union[_types_pb2.Value, _Mapping]]] = ..., plan: _Optional[_Union[_retrieval_pb2.FilterPlan, _Mapping]] = ..., terms: _Optional[_Iterable[_Union[_retrieval_pb2.Term, _Mapping]]] = ..., lexical_titles: _Optional[_Iterable[float]] = ..., boosts: _Optional[_Iterable[float]] = ..., title_scores: _Optional[_Iterable[float]] = ..., lexical_title_score: _Optional[float] = ..., cost: _Optional[_Union[_types_pb2.SearchCost, _Mapping]] = ..., fallback: _Optional[str] = ...) -> None: ...

class HitPayload(_message.Message):
    __slots__ = ("title", "text", "attributes", "vector", "section")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _types_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.Value, _Mapping]] = ...) -> None: ...
    TITLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    SECTION_FIELD_NUMBER: _ClassVar[int]
    title: str
    text: str
    attributes: _containers.MessageMap[str, _types_pb2.Value]
    vector: _types_pb2.Vectors
    section: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, title: _Optional[str] = ..., text: _Optional[str] = ..., attributes: _Optional[_Mapping[str, _types_pb2.Value]] = ..., vector: _Optional[_Union[_types_pb2.Vectors, _Mapping]] = ..., section: _Optional[_Iterable[str]] = ...) -> None: ...

class SearchShardResponse(_message.Message):
    __slots__ = ("results", "elapsed", "watermark", "stale")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ShardHits]
    elapsed: _duration_pb2.Duration
    watermark: bytes
    stale: str
    def __init__(self, results: _Optional[_Iterable[_Union[ShardHits, _Mapping]]] = ..., elapsed: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., watermark: _Optional[bytes] = ..., stale: _Optional[str] = ...) -> None: ...

class FetchItemsRequest(_message.Message):
    __slots__ = ("collection", "snapshot_id", "shard", "ids", "payload", "chunks", "min_watermark", "filter", "highlight")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    MIN_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    HIGHLIGHT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    snapshot_id: str
    shard: int
    ids: _containers.RepeatedScalarFieldContainer[str]
    payload: _containers.RepeatedScalarFieldContainer[_retrieval_pb2.PayloadField]
    chunks: _containers.RepeatedScalarFieldContainer[int]
    min_watermark: bytes
    filter: _types_pb2.Filter
    highlight: HighlightRequest
    def __init__(self, collection: _Optional[str] = ..., snapshot_id: _Optional[str] = ..., shard: _Optional[int] = ..., ids: _Optional[_Iterable[str]] = ..., payload: _Optional[_Iterable[_Union[_retrieval_pb2.PayloadField, str]]] = ..., chunks: _Optional[_Iterable[int]] = ..., min_watermark: _Optional[bytes] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., highlight: _Optional[_Union[HighlightRequest, _Mapping]] = ...) -> None: ...

class HighlightRequest(_message.Message):
    __slots__ = ("texts", "items", "passage_chars", "chunks")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    PASSAGE_CHARS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    items: _containers.RepeatedCompositeFieldContainer[HighlightedItem]
    passage_chars: int
    chunks: int
    def __init__(self, texts: _Optional[_Iterable[str]] = ..., items: _Optional[_Iterable[_Union[HighlightedItem, _Mapping]]] = ..., passage_chars: _Optional[int] = ..., chunks: _Optional[int] = ...) -> None: ...

class HighlightedItem(_message.Message):
    __slots__ = ("queries",)
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    queries: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, queries: _Optional[_Iterable[int]] = ...) -> None: ...

class ItemHighlights(_message.Message):
    __slots__ = ("queries",)
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    queries: _containers.RepeatedCompositeFieldContainer[_retrieval_pb2.Highlights]
    def __init__(self, queries: _Optional[_Iterable[_Union[_retrieval_pb2.Highlights, _Mapping]]] = ...) -> None: ...

class FetchItemsResponse(_message.Message):
    __slots__ = ("items", "watermark", "stale", "highlights")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    HIGHLIGHTS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[_retrieval_pb2.Item]
    watermark: bytes
    stale: str
    highlights: _containers.RepeatedCompositeFieldContainer[ItemHighlights]
    def __init__(self, items: _Optional[_Iterable[_Union[_retrieval_pb2.Item, _Mapping]]] = ..., watermark: _Optional[bytes] = ..., stale: _Optional[str] = ..., highlights: _Optional[_Iterable[_Union[ItemHighlights, _Mapping]]] = ...) -> None: ...

class ScanItemsRequest(_message.Message):
    __slots__ = ("collection", "snapshot_id", "shard", "after_id", "limit", "filter", "payload", "min_watermark")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    AFTER_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    MIN_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    collection: str
    snapshot_id: str
    shard: int
    after_id: str
    limit: int
    filter: _types_pb2.Filter
    payload: _containers.RepeatedScalarFieldContainer[_retrieval_pb2.PayloadField]
    min_watermark: bytes
    def __init__(self, collection: _Optional[str] = ..., snapshot_id: _Optional[str] = ..., shard: _Optional[int] = ..., after_id: _Optional[str] = ..., limit: _Optional[int] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., payload: _Optional[_Iterable[_Union[_retrieval_pb2.PayloadField, str]]] = ..., min_watermark: _Optional[bytes] = ...) -> None: ...

class ScanItemsResponse(_message.Message):
    __slots__ = ("items", "watermark", "stale")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[_retrieval_pb2.Item]
    watermark: bytes
    stale: str
    def __init__(self, items: _Optional[_Iterable[_Union[_retrieval_pb2.Item, _Mapping]]] = ..., watermark: _Optional[bytes] = ..., stale: _Optional[str] = ...) -> None: ...

class CountShardRequest(_message.Message):
    __slots__ = ("collection", "snapshot_id", "shard", "filter", "fields", "min_watermark")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    MIN_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    collection: str
    snapshot_id: str
    shard: int
    filter: _types_pb2.Filter
    fields: _containers.RepeatedScalarFieldContainer[str]
    min_watermark: bytes
    def __init__(self, collection: _Optional[str] = ..., snapshot_id: _Optional[str] = ..., shard: _Optional[int] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., fields: _Optional[_Iterable[str]] = ..., min_watermark: _Optional[bytes] = ...) -> None: ...

class SuggestShardRequest(_message.Message):
    __slots__ = ("collection", "snapshot_id", "shard", "text", "limit", "filter", "min_watermark")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    MIN_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    collection: str
    snapshot_id: str
    shard: int
    text: str
    limit: int
    filter: _types_pb2.Filter
    min_watermark: bytes
    def __init__(self, collection: _Optional[str] = ..., snapshot_id: _Optional[str] = ..., shard: _Optional[int] = ..., text: _Optional[str] = ..., limit: _Optional[int] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., min_watermark: _Optional[bytes] = ...) -> None: ...

class SuggestShardResponse(_message.Message):
    __slots__ = ("suggestions", "correction", "watermark", "stale")
    SUGGESTIONS_FIELD_NUMBER: _ClassVar[int]
    CORRECTION_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    suggestions: _containers.RepeatedCompositeFieldContainer[_retrieval_pb2.Suggestion]
    correction: str
    watermark: bytes
    stale: str
    def __init__(self, suggestions: _Optional[_Iterable[_Union[_retrieval_pb2.Suggestion, _Mapping]]] = ..., correction: _Optional[str] = ..., watermark: _Optional[bytes] = ..., stale: _Optional[str] = ...) -> None: ...

class CountShardResponse(_message.Message):
    __slots__ = ("count", "facets", "watermark", "stale")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    FACETS_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    count: int
    facets: _containers.RepeatedCompositeFieldContainer[_retrieval_pb2.FacetCounts]
    watermark: bytes
    stale: str
    def __init__(self, count: _Optional[int] = ..., facets: _Optional[_Iterable[_Union[_retrieval_pb2.FacetCounts, _Mapping]]] = ..., watermark: _Optional[bytes] = ..., stale: _Optional[str] = ...) -> None: ...

class FindCandidatesRequest(_message.Message):
    __slots__ = ("collection", "snapshot_id", "shard", "generators", "keys", "time_us", "weights", "most", "repeats", "hidden", "hide_history", "now_us", "filter", "min_watermark", "trained_only", "reasons_for", "explain", "also", "segments", "among")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    GENERATORS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    MOST_FIELD_NUMBER: _ClassVar[int]
    REPEATS_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_FIELD_NUMBER: _ClassVar[int]
    HIDE_HISTORY_FIELD_NUMBER: _ClassVar[int]
    NOW_US_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    MIN_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    TRAINED_ONLY_FIELD_NUMBER: _ClassVar[int]
    REASONS_FOR_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    ALSO_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    AMONG_FIELD_NUMBER: _ClassVar[int]
    collection: str
    snapshot_id: str
    shard: int
    generators: _containers.RepeatedScalarFieldContainer[str]
    keys: bytes
    time_us: bytes
    weights: bytes
    most: int
    repeats: bool
    hidden: bytes
    hide_history: bool
    now_us: int
    filter: _types_pb2.Filter
    min_watermark: bytes
    trained_only: bool
    reasons_for: bytes
    explain: bool
    also: _containers.RepeatedScalarFieldContainer[int]
    segments: _containers.RepeatedScalarFieldContainer[int]
    among: bytes
    def __init__(self, collection: _Optional[str] = ..., snapshot_id: _Optional[str] = ..., shard: _Optional[int] = ..., generators: _Optional[_Iterable[str]] = ..., keys: _Optional[bytes] = ..., time_us: _Optional[bytes] = ..., weights: _Optional[bytes] = ..., most: _Optional[int] = ..., repeats: _Optional[bool] = ..., hidden: _Optional[bytes] = ..., hide_history: _Optional[bool] = ..., now_us: _Optional[int] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., min_watermark: _Optional[bytes] = ..., trained_only: _Optional[bool] = ..., reasons_for: _Optional[bytes] = ..., explain: _Optional[bool] = ..., also: _Optional[_Iterable[int]] = ..., segments: _Optional[_Iterable[int]] = ..., among: _Optional[bytes] = ...) -> None: ...

class ScoredItems(_message.Message):
    __slots__ = ("numbers", "scores")
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    numbers: bytes
    scores: bytes
    def __init__(self, numbers: _Optional[bytes] = ..., scores: _Optional[bytes] = ...) -> None: ...

class ItemReasons(_message.Message):
    __slots__ = ("reasons",)
    REASONS_FIELD_NUMBER: _ClassVar[int]
    reasons: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, reasons: _Optional[_Iterable[str]] = ...) -> None: ...

class FindCandidatesResponse(_message.Message):
    __slots__ = ("events", "scored", "numbers", "ids", "id_bytes", "levels", "columns", "reasons", "total_count", "watermark", "stale")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    SCORED_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    ID_BYTES_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_COUNT_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    events: bytes
    scored: _containers.RepeatedCompositeFieldContainer[ScoredItems]
    numbers: bytes
    ids: bytes
    id_bytes: bytes
    levels: bytes
    columns: bytes
    reasons: _containers.RepeatedCompositeFieldContainer[ItemReasons]
    total_count: float
    watermark: bytes
    stale: str
    def __init__(self, events: _Optional[bytes] = ..., scored: _Optional[_Iterable[_Union[ScoredItems, _Mapping]]] = ..., numbers: _Optional[bytes] = ..., ids: _Optional[bytes] = ..., id_bytes: _Optional[bytes] = ..., levels: _Optional[bytes] = ..., columns: _Optional[bytes] = ..., reasons: _Optional[_Iterable[_Union[ItemReasons, _Mapping]]] = ..., total_count: _Optional[float] = ..., watermark: _Optional[bytes] = ..., stale: _Optional[str] = ...) -> None: ...

class ReadHistoryRequest(_message.Message):
    __slots__ = ("collection", "snapshot_id", "shard", "user_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    snapshot_id: str
    shard: int
    user_id: str
    def __init__(self, collection: _Optional[str] = ..., snapshot_id: _Optional[str] = ..., shard: _Optional[int] = ..., user_id: _Optional[str] = ...) -> None: ...

class ReadHistoryResponse(_message.Message):
    __slots__ = ("ids", "id_bytes", "time_us", "weights", "again")
    IDS_FIELD_NUMBER: _ClassVar[int]
    ID_BYTES_FIELD_NUMBER: _ClassVar[int]
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    AGAIN_FIELD_NUMBER: _ClassVar[int]
    ids: bytes
    id_bytes: bytes
    time_us: bytes
    weights: bytes
    again: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ids: _Optional[bytes] = ..., id_bytes: _Optional[bytes] = ..., time_us: _Optional[bytes] = ..., weights: _Optional[bytes] = ..., again: _Optional[_Iterable[str]] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LoadedShard(_message.Message):
    __slots__ = ("collection", "snapshot_id", "shard", "ready", "vectors", "watermark", "delta", "stale")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    snapshot_id: str
    shard: int
    ready: bool
    vectors: int
    watermark: bytes
    delta: DeltaStatus
    stale: str
    def __init__(self, collection: _Optional[str] = ..., snapshot_id: _Optional[str] = ..., shard: _Optional[int] = ..., ready: _Optional[bool] = ..., vectors: _Optional[int] = ..., watermark: _Optional[bytes] = ..., delta: _Optional[_Union[DeltaStatus, _Mapping]] = ..., stale: _Optional[str] = ...) -> None: ...

class DeltaStatus(_message.Message):
    __slots__ = ("rows", "dead_rows", "hidden_rows", "changes", "behind", "away", "oldest_change_time")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    DEAD_ROWS_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_ROWS_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    BEHIND_FIELD_NUMBER: _ClassVar[int]
    AWAY_FIELD_NUMBER: _ClassVar[int]
    OLDEST_CHANGE_TIME_FIELD_NUMBER: _ClassVar[int]
    rows: int
    dead_rows: int
    hidden_rows: int
    changes: int
    behind: int
    away: _duration_pb2.Duration
    oldest_change_time: _timestamp_pb2.Timestamp
    def __init__(self, rows: _Optional[int] = ..., dead_rows: _Optional[int] = ..., hidden_rows: _Optional[int] = ..., changes: _Optional[int] = ..., behind: _Optional[int] = ..., away: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., oldest_change_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class MemoryLimit(_message.Message):
    __slots__ = ("free_bytes", "total_bytes")
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    free_bytes: int
    total_bytes: int
    def __init__(self, free_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ...) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("shards", "memory")
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    shards: _containers.RepeatedCompositeFieldContainer[LoadedShard]
    memory: _containers.RepeatedCompositeFieldContainer[MemoryLimit]
    def __init__(self, shards: _Optional[_Iterable[_Union[LoadedShard, _Mapping]]] = ..., memory: _Optional[_Iterable[_Union[MemoryLimit, _Mapping]]] = ...) -> None: ...

class LoadSnapshotRequest(_message.Message):
    __slots__ = ("collection", "snapshot_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    snapshot_id: str
    def __init__(self, collection: _Optional[str] = ..., snapshot_id: _Optional[str] = ...) -> None: ...

class LoadSnapshotResponse(_message.Message):
    __slots__ = ("elapsed",)
    ELAPSED_FIELD_NUMBER: _ClassVar[int]
    elapsed: _duration_pb2.Duration
    def __init__(self, elapsed: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class UnloadSnapshotRequest(_message.Message):
    __slots__ = ("collection", "snapshot_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    snapshot_id: str
    def __init__(self, collection: _Optional[str] = ..., snapshot_id: _Optional[str] = ...) -> None: ...

class UnloadSnapshotResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
