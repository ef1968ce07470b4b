import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from nearline.v1 import embedding_pb2 as _embedding_pb2
from nearline.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SearchMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEARCH_MODE_UNSPECIFIED: _ClassVar[SearchMode]
    SEARCH_MODE_DENSE: _ClassVar[SearchMode]
    SEARCH_MODE_LEXICAL: _ClassVar[SearchMode]
    SEARCH_MODE_HYBRID: _ClassVar[SearchMode]

class HitLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HIT_LEVEL_UNSPECIFIED: _ClassVar[HitLevel]
    HIT_LEVEL_DOCUMENT: _ClassVar[HitLevel]
    HIT_LEVEL_CHUNK: _ClassVar[HitLevel]

class PayloadField(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PAYLOAD_FIELD_UNSPECIFIED: _ClassVar[PayloadField]
    PAYLOAD_FIELD_TITLE: _ClassVar[PayloadField]
    PAYLOAD_FIELD_TEXT: _ClassVar[PayloadField]
    PAYLOAD_FIELD_ATTRIBUTES: _ClassVar[PayloadField]
    PAYLOAD_FIELD_VECTOR: _ClassVar[PayloadField]
    PAYLOAD_FIELD_SECTION: _ClassVar[PayloadField]
SEARCH_MODE_UNSPECIFIED: SearchMode
SEARCH_MODE_DENSE: SearchMode
SEARCH_MODE_LEXICAL: SearchMode
SEARCH_MODE_HYBRID: SearchMode
HIT_LEVEL_UNSPECIFIED: HitLevel
HIT_LEVEL_DOCUMENT: HitLevel
HIT_LEVEL_CHUNK: HitLevel
PAYLOAD_FIELD_UNSPECIFIED: PayloadField
PAYLOAD_FIELD_TITLE: PayloadField
PAYLOAD_FIELD_TEXT: PayloadField
PAYLOAD_FIELD_ATTRIBUTES: PayloadField
PAYLOAD_FIELD_VECTOR: PayloadField
PAYLOAD_FIELD_SECTION: PayloadField

class ItemIds(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Query(_message.Message):
    __slots__ = ("text", "vector", "items")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    text: str
    vector: _types_pb2.Vectors
    items: ItemIds
    def __init__(self, text: _Optional[str] = ..., vector: _Optional[_Union[_types_pb2.Vectors, _Mapping]] = ..., items: _Optional[_Union[ItemIds, _Mapping]] = ...) -> None: ...

class SearchOptions(_message.Message):
    __slots__ = ("k", "mode", "level", "payload", "filter", "ef_search", "nprobe", "exact", "require_full_coverage", "min_watermark", "snapshot_id", "explain", "min_score", "grouping", "diversity", "dense_weight", "unit", "plain_text", "highlight", "min_should_match", "rerank", "boosts", "user_id", "session_id", "personal", "unrecorded")
    K_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    EF_SEARCH_FIELD_NUMBER: _ClassVar[int]
    NPROBE_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    REQUIRE_FULL_COVERAGE_FIELD_NUMBER: _ClassVar[int]
    MIN_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    GROUPING_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    DENSE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    PLAIN_TEXT_FIELD_NUMBER: _ClassVar[int]
    HIGHLIGHT_FIELD_NUMBER: _ClassVar[int]
    MIN_SHOULD_MATCH_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    BOOSTS_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PERSONAL_FIELD_NUMBER: _ClassVar[int]
    UNRECORDED_FIELD_NUMBER: _ClassVar[int]
    k: int
    mode: SearchMode
    level: HitLevel
    payload: _containers.RepeatedScalarFieldContainer[PayloadField]
    filter: _types_pb2.Filter
    ef_search: int
    nprobe: int
    exact: bool
    require_full_coverage: bool
    min_watermark: bytes
    snapshot_id: str
    explain: bool
    min_score: float
    grouping: Grouping
    diversity: float
    dense_weight: float
    unit: str
    plain_text: bool
    highlight: Highlighting
    min_should_match: float
    rerank: int
    boosts: _containers.RepeatedCompositeFieldContainer[Boost]
    user_id: str
    session_id: str
    personal: float
    unrecorded: bool
    def __init__(self, k: _Optional[int] = ..., mode: _Optional[_Union[SearchMode, str]] = ..., level: _Optional[_Union[HitLevel, str]] = ..., payload: _Optional[_Iterable[_Union[PayloadField, str]]] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., ef_search: _Optional[int] = ..., nprobe: _Optional[int] = ..., exact: _Optional[bool] = ..., require_full_coverage: _Optional[bool] = ..., min_watermark: _Optional[bytes] = ..., snapshot_id: _Optional[str] = ..., explain: _Optional[bool] = ..., min_score: _Optional[float] = ..., grouping: _Optional[_Union[Grouping, _Mapping]] = ..., diversity: _Optional[float] = ..., dense_weight: _Optional[float] = ..., unit: _Optional[str] = ..., plain_text: _Optional[bool] = ..., highlight: _Optional[_Union[Highlighting, _Mapping]] = ..., min_should_match: _Optional[float] = ..., rerank: _Optional[int] = ..., boosts: _Optional[_Iterable[_Union[Boost, _Mapping]]] = ..., user_id: _Optional[str] = ..., session_id: _Optional[str] = ..., personal: _Optional[float] = ..., unrecorded: _Optional[bool] = ...) -> None: ...

class Boost(_message.Message):
    __slots__ = ("field", "weight", "any_of", "growth", "decay")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    ANY_OF_FIELD_NUMBER: _ClassVar[int]
    GROWTH_FIELD_NUMBER: _ClassVar[int]
    DECAY_FIELD_NUMBER: _ClassVar[int]
    field: str
    weight: float
    any_of: BoostAnyOf
    growth: BoostGrowth
    decay: BoostDecay
    def __init__(self, field: _Optional[str] = ..., weight: _Optional[float] = ..., any_of: _Optional[_Union[BoostAnyOf, _Mapping]] = ..., growth: _Optional[_Union[BoostGrowth, _Mapping]] = ..., decay: _Optional[_Union[BoostDecay, _Mapping]] = ...) -> None: ...

class BoostAnyOf(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[_types_pb2.Value]
    def __init__(self, values: _Optional[_Iterable[_Union[_types_pb2.Value, _Mapping]]] = ...) -> None: ...

class BoostGrowth(_message.Message):
    __slots__ = ("pivot", "top")
    PIVOT_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    pivot: float
    top: float
    def __init__(self, pivot: _Optional[float] = ..., top: _Optional[float] = ...) -> None: ...

class BoostDecay(_message.Message):
    __slots__ = ("origin", "scale", "offset", "decay", "shape")
    class Shape(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SHAPE_UNSPECIFIED: _ClassVar[BoostDecay.Shape]
        SHAPE_GAUSS: _ClassVar[BoostDecay.Shape]
        SHAPE_EXP: _ClassVar[BoostDecay.Shape]
        SHAPE_LINEAR: _ClassVar[BoostDecay.Shape]
    SHAPE_UNSPECIFIED: BoostDecay.Shape
    SHAPE_GAUSS: BoostDecay.Shape
    SHAPE_EXP: BoostDecay.Shape
    SHAPE_LINEAR: BoostDecay.Shape
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DECAY_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    origin: _types_pb2.Value
    scale: float
    offset: float
    decay: float
    shape: BoostDecay.Shape
    def __init__(self, origin: _Optional[_Union[_types_pb2.Value, _Mapping]] = ..., scale: _Optional[float] = ..., offset: _Optional[float] = ..., decay: _Optional[float] = ..., shape: _Optional[_Union[BoostDecay.Shape, str]] = ...) -> None: ...

class Highlighting(_message.Message):
    __slots__ = ("passage_chars",)
    PASSAGE_CHARS_FIELD_NUMBER: _ClassVar[int]
    passage_chars: int
    def __init__(self, passage_chars: _Optional[int] = ...) -> None: ...

class Grouping(_message.Message):
    __slots__ = ("field", "size")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    field: str
    size: int
    def __init__(self, field: _Optional[str] = ..., size: _Optional[int] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("collection", "query", "options", "page_token")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    collection: str
    query: Query
    options: SearchOptions
    page_token: str
    def __init__(self, collection: _Optional[str] = ..., query: _Optional[_Union[Query, _Mapping]] = ..., options: _Optional[_Union[SearchOptions, _Mapping]] = ..., page_token: _Optional[str] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("dense_score", "lexical_score", "shard", "dense_rank", "lexical_rank", "title_level", "boosts")
    DENSE_SCORE_FIELD_NUMBER: _ClassVar[int]
    LEXICAL_SCORE_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    DENSE_RANK_FIELD_NUMBER: _ClassVar[int]
    LEXICAL_RANK_FIELD_NUMBER: _ClassVar[int]
    TITLE_LEVEL_FIELD_NUMBER: _ClassVar[int]
    BOOSTS_FIELD_NUMBER: _ClassVar[int]
    dense_score: float
    lexical_score: float
    shard: int
    dense_rank: int
    lexical_rank: int
    title_level: float
    boosts: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, dense_score: _Optional[float] = ..., lexical_score: _Optional[float] = ..., shard: _Optional[int] = ..., dense_rank: _Optional[int] = ..., lexical_rank: _Optional[int] = ..., title_level: _Optional[float] = ..., boosts: _Optional[_Iterable[float]] = ...) -> None: ...

class FilterPlan(_message.Message):
    __slots__ = ("shard", "strategy", "matches", "chunks", "ef_search", "reason")
    class Strategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STRATEGY_UNSPECIFIED: _ClassVar[FilterPlan.Strategy]
        STRATEGY_EXACT: _ClassVar[FilterPlan.Strategy]
        STRATEGY_BITMAP: _ClassVar[FilterPlan.Strategy]
        STRATEGY_EXACT_AFTER_SHORT: _ClassVar[FilterPlan.Strategy]
        STRATEGY_EMPTY: _ClassVar[FilterPlan.Strategy]
        STRATEGY_BACKEND: _ClassVar[FilterPlan.Strategy]
    STRATEGY_UNSPECIFIED: FilterPlan.Strategy
    STRATEGY_EXACT: FilterPlan.Strategy
    STRATEGY_BITMAP: FilterPlan.Strategy
    STRATEGY_EXACT_AFTER_SHORT: FilterPlan.Strategy
    STRATEGY_EMPTY: FilterPlan.Strategy
    STRATEGY_BACKEND: FilterPlan.Strategy
    SHARD_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    EF_SEARCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    shard: int
    strategy: FilterPlan.Strategy
    matches: int
    chunks: int
    ef_search: int
    reason: str
    def __init__(self, shard: _Optional[int] = ..., strategy: _Optional[_Union[FilterPlan.Strategy, str]] = ..., matches: _Optional[int] = ..., chunks: _Optional[int] = ..., ef_search: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("id", "score", "chunk", "start", "end", "title", "text", "attributes", "vector", "explanation", "group", "highlights", "section", "reasons")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _types_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.Value, _Mapping]] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    HIGHLIGHTS_FIELD_NUMBER: _ClassVar[int]
    SECTION_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    id: str
    score: float
    chunk: int
    start: int
    end: int
    title: str
    text: str
    attributes: _containers.MessageMap[str, _types_pb2.Value]
    vector: _types_pb2.Vectors
    explanation: Explanation
    group: _types_pb2.Value
    highlights: Highlights
    section: _containers.RepeatedScalarFieldContainer[str]
    reasons: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., score: _Optional[float] = ..., chunk: _Optional[int] = ..., start: _Optional[int] = ..., end: _Optional[int] = ..., title: _Optional[str] = ..., text: _Optional[str] = ..., attributes: _Optional[_Mapping[str, _types_pb2.Value]] = ..., vector: _Optional[_Union[_types_pb2.Vectors, _Mapping]] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ..., group: _Optional[_Union[_types_pb2.Value, _Mapping]] = ..., highlights: _Optional[_Union[Highlights, _Mapping]] = ..., section: _Optional[_Iterable[str]] = ..., reasons: _Optional[_Iterable[str]] = ...) -> None: ...

class Highlights(_message.Message):
    __slots__ = ("title", "passage")
    TITLE_FIELD_NUMBER: _ClassVar[int]
    PASSAGE_FIELD_NUMBER: _ClassVar[int]
    title: _containers.RepeatedCompositeFieldContainer[TextSpan]
    passage: Passage
    def __init__(self, title: _Optional[_Iterable[_Union[TextSpan, _Mapping]]] = ..., passage: _Optional[_Union[Passage, _Mapping]] = ...) -> None: ...

class Passage(_message.Message):
    __slots__ = ("start", "end", "text", "spans")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    text: str
    spans: _containers.RepeatedCompositeFieldContainer[TextSpan]
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ..., text: _Optional[str] = ..., spans: _Optional[_Iterable[_Union[TextSpan, _Mapping]]] = ...) -> None: ...

class IgnoredId(_message.Message):
    __slots__ = ("id", "reason")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[IgnoredId.Reason]
        REASON_NOT_FOUND: _ClassVar[IgnoredId.Reason]
        REASON_SHARD_UNAVAILABLE: _ClassVar[IgnoredId.Reason]
    REASON_UNSPECIFIED: IgnoredId.Reason
    REASON_NOT_FOUND: IgnoredId.Reason
    REASON_SHARD_UNAVAILABLE: IgnoredId.Reason
    ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    reason: IgnoredId.Reason
    def __init__(self, id: _Optional[str] = ..., reason: _Optional[_Union[IgnoredId.Reason, str]] = ...) -> None: ...

class Term(_message.Message):
    __slots__ = ("word", "chunks", "idf")
    WORD_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    IDF_FIELD_NUMBER: _ClassVar[int]
    word: str
    chunks: int
    idf: float
    def __init__(self, word: _Optional[str] = ..., chunks: _Optional[int] = ..., idf: _Optional[float] = ...) -> None: ...

class HitList(_message.Message):
    __slots__ = ("hits", "ignored_ids", "plans", "terms", "language")
    HITS_FIELD_NUMBER: _ClassVar[int]
    IGNORED_IDS_FIELD_NUMBER: _ClassVar[int]
    PLANS_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    ignored_ids: _containers.RepeatedCompositeFieldContainer[IgnoredId]
    plans: _containers.RepeatedCompositeFieldContainer[FilterPlan]
    terms: _containers.RepeatedCompositeFieldContainer[Term]
    language: str
    def __init__(self, hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ..., ignored_ids: _Optional[_Iterable[_Union[IgnoredId, _Mapping]]] = ..., plans: _Optional[_Iterable[_Union[FilterPlan, _Mapping]]] = ..., terms: _Optional[_Iterable[_Union[Term, _Mapping]]] = ..., language: _Optional[str] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("result", "info", "next_page_token")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    result: HitList
    info: _types_pb2.ReplyInfo
    next_page_token: str
    def __init__(self, result: _Optional[_Union[HitList, _Mapping]] = ..., info: _Optional[_Union[_types_pb2.ReplyInfo, _Mapping]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class SearchBatchRequest(_message.Message):
    __slots__ = ("collection", "queries", "options")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    queries: _containers.RepeatedCompositeFieldContainer[Query]
    options: SearchOptions
    def __init__(self, collection: _Optional[str] = ..., queries: _Optional[_Iterable[_Union[Query, _Mapping]]] = ..., options: _Optional[_Union[SearchOptions, _Mapping]] = ...) -> None: ...

class SearchBatchResponse(_message.Message):
    __slots__ = ("results", "info")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[HitList]
    info: _types_pb2.ReplyInfo
    def __init__(self, results: _Optional[_Iterable[_Union[HitList, _Mapping]]] = ..., info: _Optional[_Union[_types_pb2.ReplyInfo, _Mapping]] = ...) -> None: ...

class GetItemsRequest(_message.Message):
    __slots__ = ("collection", "ids", "payload", "min_watermark")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    MIN_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    payload: _containers.RepeatedScalarFieldContainer[PayloadField]
    min_watermark: bytes
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., payload: _Optional[_Iterable[_Union[PayloadField, str]]] = ..., min_watermark: _Optional[bytes] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("id", "title", "text", "attributes", "vector", "expire_time", "version", "section")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _types_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.Value, _Mapping]] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SECTION_FIELD_NUMBER: _ClassVar[int]
    id: str
    title: str
    text: str
    attributes: _containers.MessageMap[str, _types_pb2.Value]
    vector: _types_pb2.Vectors
    expire_time: _timestamp_pb2.Timestamp
    version: int
    section: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., title: _Optional[str] = ..., text: _Optional[str] = ..., attributes: _Optional[_Mapping[str, _types_pb2.Value]] = ..., vector: _Optional[_Union[_types_pb2.Vectors, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., version: _Optional[int] = ..., section: _Optional[_Iterable[str]] = ...) -> None: ...

class GetItemsResponse(_message.Message):
    __slots__ = ("items", "ignored_ids", "info")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    IGNORED_IDS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Item]
    ignored_ids: _containers.RepeatedCompositeFieldContainer[IgnoredId]
    info: _types_pb2.ReplyInfo
    def __init__(self, items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., ignored_ids: _Optional[_Iterable[_Union[IgnoredId, _Mapping]]] = ..., info: _Optional[_Union[_types_pb2.ReplyInfo, _Mapping]] = ...) -> None: ...

class ListItemsRequest(_message.Message):
    __slots__ = ("collection", "page_size", "page_token", "filter", "payload", "min_watermark")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    MIN_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    collection: str
    page_size: int
    page_token: str
    filter: _types_pb2.Filter
    payload: _containers.RepeatedScalarFieldContainer[PayloadField]
    min_watermark: bytes
    def __init__(self, collection: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., payload: _Optional[_Iterable[_Union[PayloadField, str]]] = ..., min_watermark: _Optional[bytes] = ...) -> None: ...

class ListItemsResponse(_message.Message):
    __slots__ = ("items", "next_page_token", "info")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Item]
    next_page_token: str
    info: _types_pb2.ReplyInfo
    def __init__(self, items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., info: _Optional[_Union[_types_pb2.ReplyInfo, _Mapping]] = ...) -> None: ...

class CountItemsRequest(_message.Message):
    __slots__ = ("collection", "filter", "facets", "min_watermark")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FACETS_FIELD_NUMBER: _ClassVar[int]
    MIN_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    collection: str
    filter: _types_pb2.Filter
    facets: _containers.RepeatedCompositeFieldContainer[Facet]
    min_watermark: bytes
    def __init__(self, collection: _Optional[str] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., facets: _Optional[_Iterable[_Union[Facet, _Mapping]]] = ..., min_watermark: _Optional[bytes] = ...) -> None: ...

class Facet(_message.Message):
    __slots__ = ("field", "limit")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    field: str
    limit: int
    def __init__(self, field: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ValueCount(_message.Message):
    __slots__ = ("value", "count")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    value: _types_pb2.Value
    count: int
    def __init__(self, value: _Optional[_Union[_types_pb2.Value, _Mapping]] = ..., count: _Optional[int] = ...) -> None: ...

class FacetCounts(_message.Message):
    __slots__ = ("field", "counts", "distinct", "missing")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    DISTINCT_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    field: str
    counts: _containers.RepeatedCompositeFieldContainer[ValueCount]
    distinct: int
    missing: int
    def __init__(self, field: _Optional[str] = ..., counts: _Optional[_Iterable[_Union[ValueCount, _Mapping]]] = ..., distinct: _Optional[int] = ..., missing: _Optional[int] = ...) -> None: ...

class CountItemsResponse(_message.Message):
    __slots__ = ("count", "facets", "info")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    FACETS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    count: int
    facets: _containers.RepeatedCompositeFieldContainer[FacetCounts]
    info: _types_pb2.ReplyInfo
    def __init__(self, count: _Optional[int] = ..., facets: _Optional[_Iterable[_Union[FacetCounts, _Mapping]]] = ..., info: _Optional[_Union[_types_pb2.ReplyInfo, _Mapping]] = ...) -> None: ...

class SuggestRequest(_message.Message):
    __slots__ = ("collection", "text", "limit", "filter", "min_watermark")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    MIN_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    collection: str
    text: str
    limit: int
    filter: _types_pb2.Filter
    min_watermark: bytes
    def __init__(self, collection: _Optional[str] = ..., text: _Optional[str] = ..., limit: _Optional[int] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., min_watermark: _Optional[bytes] = ...) -> None: ...

class Suggestion(_message.Message):
    __slots__ = ("title", "id", "score", "spans")
    TITLE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    title: str
    id: str
    score: float
    spans: _containers.RepeatedCompositeFieldContainer[TextSpan]
    def __init__(self, title: _Optional[str] = ..., id: _Optional[str] = ..., score: _Optional[float] = ..., spans: _Optional[_Iterable[_Union[TextSpan, _Mapping]]] = ...) -> None: ...

class TextSpan(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class SuggestResponse(_message.Message):
    __slots__ = ("suggestions", "correction", "info", "queries")
    SUGGESTIONS_FIELD_NUMBER: _ClassVar[int]
    CORRECTION_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    suggestions: _containers.RepeatedCompositeFieldContainer[Suggestion]
    correction: str
    info: _types_pb2.ReplyInfo
    queries: _containers.RepeatedCompositeFieldContainer[PopularQuery]
    def __init__(self, suggestions: _Optional[_Iterable[_Union[Suggestion, _Mapping]]] = ..., correction: _Optional[str] = ..., info: _Optional[_Union[_types_pb2.ReplyInfo, _Mapping]] = ..., queries: _Optional[_Iterable[_Union[PopularQuery, _Mapping]]] = ...) -> None: ...

class PopularQuery(_message.Message):
    __slots__ = ("text", "count")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    text: str
    count: int
    def __init__(self, text: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class RecommendRequest(_message.Message):
    __slots__ = ("collection", "user_id", "session_id", "item_ids", "surface", "n", "exclude_ids", "filter", "payload", "diversity", "explain", "min_watermark", "why_not_id", "popularity_debias", "context", "unrecorded")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _types_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.Value, _Mapping]] = ...) -> None: ...
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_IDS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    MIN_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    WHY_NOT_ID_FIELD_NUMBER: _ClassVar[int]
    POPULARITY_DEBIAS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    UNRECORDED_FIELD_NUMBER: _ClassVar[int]
    collection: str
    user_id: str
    session_id: str
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    surface: str
    n: int
    exclude_ids: _containers.RepeatedScalarFieldContainer[str]
    filter: _types_pb2.Filter
    payload: _containers.RepeatedScalarFieldContainer[PayloadField]
    diversity: float
    explain: bool
    min_watermark: bytes
    why_not_id: str
    popularity_debias: float
    context: _containers.MessageMap[str, _types_pb2.Value]
    unrecorded: bool
    def __init__(self, collection: _Optional[str] = ..., user_id: _Optional[str] = ..., session_id: _Optional[str] = ..., item_ids: _Optional[_Iterable[str]] = ..., surface: _Optional[str] = ..., n: _Optional[int] = ..., exclude_ids: _Optional[_Iterable[str]] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., payload: _Optional[_Iterable[_Union[PayloadField, str]]] = ..., diversity: _Optional[float] = ..., explain: _Optional[bool] = ..., min_watermark: _Optional[bytes] = ..., why_not_id: _Optional[str] = ..., popularity_debias: _Optional[float] = ..., context: _Optional[_Mapping[str, _types_pb2.Value]] = ..., unrecorded: _Optional[bool] = ...) -> None: ...

class Recommendation(_message.Message):
    __slots__ = ("hit", "reasons", "propensity")
    HIT_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    hit: Hit
    reasons: _containers.RepeatedScalarFieldContainer[str]
    propensity: float
    def __init__(self, hit: _Optional[_Union[Hit, _Mapping]] = ..., reasons: _Optional[_Iterable[str]] = ..., propensity: _Optional[float] = ...) -> None: ...

class WhyNot(_message.Message):
    __slots__ = ("id", "cause", "rank", "message")
    class Cause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CAUSE_UNSPECIFIED: _ClassVar[WhyNot.Cause]
        CAUSE_LISTED: _ClassVar[WhyNot.Cause]
        CAUSE_NO_SUCH_ITEM: _ClassVar[WhyNot.Cause]
        CAUSE_OUTRANKED: _ClassVar[WhyNot.Cause]
        CAUSE_SEEN: _ClassVar[WhyNot.Cause]
        CAUSE_EXCLUDED: _ClassVar[WhyNot.Cause]
        CAUSE_BLOCKED: _ClassVar[WhyNot.Cause]
        CAUSE_FILTERED: _ClassVar[WhyNot.Cause]
        CAUSE_QUOTA: _ClassVar[WhyNot.Cause]
        CAUSE_DIVERSITY: _ClassVar[WhyNot.Cause]
    CAUSE_UNSPECIFIED: WhyNot.Cause
    CAUSE_LISTED: WhyNot.Cause
    CAUSE_NO_SUCH_ITEM: WhyNot.Cause
    CAUSE_OUTRANKED: WhyNot.Cause
    CAUSE_SEEN: WhyNot.Cause
    CAUSE_EXCLUDED: WhyNot.Cause
    CAUSE_BLOCKED: WhyNot.Cause
    CAUSE_FILTERED: WhyNot.Cause
    CAUSE_QUOTA: WhyNot.Cause
    CAUSE_DIVERSITY: WhyNot.Cause
    ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    id: str
    cause: WhyNot.Cause
    rank: int
    message: str
    def __init__(self, id: _Optional[str] = ..., cause: _Optional[_Union[WhyNot.Cause, str]] = ..., rank: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class RecommendResponse(_message.Message):
    __slots__ = ("recommendations", "ignored_ids", "info", "why_not", "policy", "story")
    RECOMMENDATIONS_FIELD_NUMBER: _ClassVar[int]
    IGNORED_IDS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    WHY_NOT_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    STORY_FIELD_NUMBER: _ClassVar[int]
    recommendations: _containers.RepeatedCompositeFieldContainer[Recommendation]
    ignored_ids: _containers.RepeatedCompositeFieldContainer[IgnoredId]
    info: _types_pb2.ReplyInfo
    why_not: WhyNot
    policy: str
    story: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, recommendations: _Optional[_Iterable[_Union[Recommendation, _Mapping]]] = ..., ignored_ids: _Optional[_Iterable[_Union[IgnoredId, _Mapping]]] = ..., info: _Optional[_Union[_types_pb2.ReplyInfo, _Mapping]] = ..., why_not: _Optional[_Union[WhyNot, _Mapping]] = ..., policy: _Optional[str] = ..., story: _Optional[_Iterable[str]] = ...) -> None: ...

class Interaction(_message.Message):
    __slots__ = ("user_id", "session_id", "item_id", "kind", "time", "weight", "list_id", "position", "event_id")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    LIST_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    session_id: str
    item_id: str
    kind: str
    time: _timestamp_pb2.Timestamp
    weight: float
    list_id: str
    position: int
    event_id: str
    def __init__(self, user_id: _Optional[str] = ..., session_id: _Optional[str] = ..., item_id: _Optional[str] = ..., kind: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., weight: _Optional[float] = ..., list_id: _Optional[str] = ..., position: _Optional[int] = ..., event_id: _Optional[str] = ...) -> None: ...

class RecordInteractionsRequest(_message.Message):
    __slots__ = ("collection", "interactions", "idempotency_key")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    INTERACTIONS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    collection: str
    interactions: _containers.RepeatedCompositeFieldContainer[Interaction]
    idempotency_key: str
    def __init__(self, collection: _Optional[str] = ..., interactions: _Optional[_Iterable[_Union[Interaction, _Mapping]]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class RecordInteractionsResponse(_message.Message):
    __slots__ = ("recorded", "duplicates", "unknown_items")
    RECORDED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEMS_FIELD_NUMBER: _ClassVar[int]
    recorded: int
    duplicates: int
    unknown_items: int
    def __init__(self, recorded: _Optional[int] = ..., duplicates: _Optional[int] = ..., unknown_items: _Optional[int] = ...) -> None: ...

class InteractionBatch(_message.Message):
    __slots__ = ("collection", "import_id", "first_row", "user_ids", "item_ids", "times_us", "kinds", "weights")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IMPORT_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_ROW_FIELD_NUMBER: _ClassVar[int]
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    TIMES_US_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    import_id: str
    first_row: int
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    times_us: _containers.RepeatedScalarFieldContainer[int]
    kinds: _containers.RepeatedScalarFieldContainer[str]
    weights: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, collection: _Optional[str] = ..., import_id: _Optional[str] = ..., first_row: _Optional[int] = ..., user_ids: _Optional[_Iterable[str]] = ..., item_ids: _Optional[_Iterable[str]] = ..., times_us: _Optional[_Iterable[int]] = ..., kinds: _Optional[_Iterable[str]] = ..., weights: _Optional[_Iterable[float]] = ...) -> None: ...

class ImportInteractionsRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: InteractionBatch
    def __init__(self, request: _Optional[_Union[InteractionBatch, _Mapping]] = ...) -> None: ...

class ImportInteractionsResponse(_message.Message):
    __slots__ = ("rows", "recorded", "duplicates")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    RECORDED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    rows: int
    recorded: int
    duplicates: int
    def __init__(self, rows: _Optional[int] = ..., recorded: _Optional[int] = ..., duplicates: _Optional[int] = ...) -> None: ...

class WriteResult(_message.Message):
    __slots__ = ("id", "outcome", "version", "reason", "message")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[WriteResult.Outcome]
        OUTCOME_APPLIED: _ClassVar[WriteResult.Outcome]
        OUTCOME_REPLACED: _ClassVar[WriteResult.Outcome]
        OUTCOME_DELETED: _ClassVar[WriteResult.Outcome]
        OUTCOME_ABSENT: _ClassVar[WriteResult.Outcome]
        OUTCOME_REJECTED: _ClassVar[WriteResult.Outcome]
        OUTCOME_UNCHANGED: _ClassVar[WriteResult.Outcome]
        OUTCOME_SUPERSEDED: _ClassVar[WriteResult.Outcome]
    OUTCOME_UNSPECIFIED: WriteResult.Outcome
    OUTCOME_APPLIED: WriteResult.Outcome
    OUTCOME_REPLACED: WriteResult.Outcome
    OUTCOME_DELETED: WriteResult.Outcome
    OUTCOME_ABSENT: WriteResult.Outcome
    OUTCOME_REJECTED: WriteResult.Outcome
    OUTCOME_UNCHANGED: WriteResult.Outcome
    OUTCOME_SUPERSEDED: WriteResult.Outcome
    ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    id: str
    outcome: WriteResult.Outcome
    version: int
    reason: str
    message: str
    def __init__(self, id: _Optional[str] = ..., outcome: _Optional[_Union[WriteResult.Outcome, str]] = ..., version: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class UpsertItemsRequest(_message.Message):
    __slots__ = ("collection", "items", "idempotency_key", "if_versions", "only_attributes", "as_of", "lane")
    class IfVersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class AsOfEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _timestamp_pb2.Timestamp
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    IF_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    ONLY_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    items: _containers.RepeatedCompositeFieldContainer[Item]
    idempotency_key: str
    if_versions: _containers.ScalarMap[str, int]
    only_attributes: bool
    as_of: _containers.MessageMap[str, _timestamp_pb2.Timestamp]
    lane: _embedding_pb2.Lane
    def __init__(self, collection: _Optional[str] = ..., items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., idempotency_key: _Optional[str] = ..., if_versions: _Optional[_Mapping[str, int]] = ..., only_attributes: _Optional[bool] = ..., as_of: _Optional[_Mapping[str, _timestamp_pb2.Timestamp]] = ..., lane: _Optional[_Union[_embedding_pb2.Lane, str]] = ...) -> None: ...

class UpsertItemsResponse(_message.Message):
    __slots__ = ("watermark", "results")
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    watermark: bytes
    results: _containers.RepeatedCompositeFieldContainer[WriteResult]
    def __init__(self, watermark: _Optional[bytes] = ..., results: _Optional[_Iterable[_Union[WriteResult, _Mapping]]] = ...) -> None: ...

class DeleteItemsRequest(_message.Message):
    __slots__ = ("collection", "ids", "idempotency_key", "if_versions")
    class IfVersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    IF_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    idempotency_key: str
    if_versions: _containers.ScalarMap[str, int]
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., idempotency_key: _Optional[str] = ..., if_versions: _Optional[_Mapping[str, int]] = ...) -> None: ...

class DeleteItemsResponse(_message.Message):
    __slots__ = ("watermark", "results")
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    watermark: bytes
    results: _containers.RepeatedCompositeFieldContainer[WriteResult]
    def __init__(self, watermark: _Optional[bytes] = ..., results: _Optional[_Iterable[_Union[WriteResult, _Mapping]]] = ...) -> None: ...

class DeleteItemsByFilterRequest(_message.Message):
    __slots__ = ("collection", "filter", "limit", "min_watermark")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MIN_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    collection: str
    filter: _types_pb2.Filter
    limit: int
    min_watermark: bytes
    def __init__(self, collection: _Optional[str] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., limit: _Optional[int] = ..., min_watermark: _Optional[bytes] = ...) -> None: ...

class DeleteItemsByFilterResponse(_message.Message):
    __slots__ = ("watermark", "deleted", "more")
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    watermark: bytes
    deleted: int
    more: bool
    def __init__(self, watermark: _Optional[bytes] = ..., deleted: _Optional[int] = ..., more: _Optional[bool] = ...) -> None: ...

class UpsertItemsStreamRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: UpsertItemsRequest
    def __init__(self, request: _Optional[_Union[UpsertItemsRequest, _Mapping]] = ...) -> None: ...

class UpsertItemsStreamResponse(_message.Message):
    __slots__ = ("watermark", "applied", "replaced", "absent", "rejected", "rejections", "unchanged", "superseded")
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    REPLACED_FIELD_NUMBER: _ClassVar[int]
    ABSENT_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    REJECTIONS_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_FIELD_NUMBER: _ClassVar[int]
    watermark: bytes
    applied: int
    replaced: int
    absent: int
    rejected: int
    rejections: _containers.RepeatedCompositeFieldContainer[WriteResult]
    unchanged: int
    superseded: int
    def __init__(self, watermark: _Optional[bytes] = ..., applied: _Optional[int] = ..., replaced: _Optional[int] = ..., absent: _Optional[int] = ..., rejected: _Optional[int] = ..., rejections: _Optional[_Iterable[_Union[WriteResult, _Mapping]]] = ..., unchanged: _Optional[int] = ..., superseded: _Optional[int] = ...) -> None: ...

class DeleteItemsStreamRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: DeleteItemsRequest
    def __init__(self, request: _Optional[_Union[DeleteItemsRequest, _Mapping]] = ...) -> None: ...

class DeleteItemsStreamResponse(_message.Message):
    __slots__ = ("watermark", "deleted", "absent", "rejected", "rejections")
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    ABSENT_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    REJECTIONS_FIELD_NUMBER: _ClassVar[int]
    watermark: bytes
    deleted: int
    absent: int
    rejected: int
    rejections: _containers.RepeatedCompositeFieldContainer[WriteResult]
    def __init__(self, watermark: _Optional[bytes] = ..., deleted: _Optional[int] = ..., absent: _Optional[int] = ..., rejected: _Optional[int] = ..., rejections: _Optional[_Iterable[_Union[WriteResult, _Mapping]]] = ...) -> None: ...

class SetUserRequest(_message.Message):
    __slots__ = ("collection", "user_id", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _types_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.Value, _Mapping]] = ...) -> None: ...
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    collection: str
    user_id: str
    attributes: _containers.MessageMap[str, _types_pb2.Value]
    def __init__(self, collection: _Optional[str] = ..., user_id: _Optional[str] = ..., attributes: _Optional[_Mapping[str, _types_pb2.Value]] = ...) -> None: ...

class SetUserResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetUserRequest(_message.Message):
    __slots__ = ("collection", "user_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    user_id: str
    def __init__(self, collection: _Optional[str] = ..., user_id: _Optional[str] = ...) -> None: ...

class GetUserResponse(_message.Message):
    __slots__ = ("interactions", "learned", "delete_time", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _types_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.Value, _Mapping]] = ...) -> None: ...
    INTERACTIONS_FIELD_NUMBER: _ClassVar[int]
    LEARNED_FIELD_NUMBER: _ClassVar[int]
    DELETE_TIME_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    interactions: _containers.RepeatedCompositeFieldContainer[Interaction]
    learned: _containers.RepeatedCompositeFieldContainer[Interaction]
    delete_time: _timestamp_pb2.Timestamp
    attributes: _containers.MessageMap[str, _types_pb2.Value]
    def __init__(self, interactions: _Optional[_Iterable[_Union[Interaction, _Mapping]]] = ..., learned: _Optional[_Iterable[_Union[Interaction, _Mapping]]] = ..., delete_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., attributes: _Optional[_Mapping[str, _types_pb2.Value]] = ...) -> None: ...

class DeleteUserRequest(_message.Message):
    __slots__ = ("collection", "user_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    user_id: str
    def __init__(self, collection: _Optional[str] = ..., user_id: _Optional[str] = ...) -> None: ...

class DeleteUserResponse(_message.Message):
    __slots__ = ("watermark", "delete_time", "interactions", "log_entries", "sessions", "snapshots", "imports_left_out", "attributes", "recorded_requests")
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    DELETE_TIME_FIELD_NUMBER: _ClassVar[int]
    INTERACTIONS_FIELD_NUMBER: _ClassVar[int]
    LOG_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    IMPORTS_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    RECORDED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    watermark: bytes
    delete_time: _timestamp_pb2.Timestamp
    interactions: int
    log_entries: int
    sessions: int
    snapshots: _containers.RepeatedCompositeFieldContainer[SnapshotInfluence]
    imports_left_out: bool
    attributes: int
    recorded_requests: int
    def __init__(self, watermark: _Optional[bytes] = ..., delete_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., interactions: _Optional[int] = ..., log_entries: _Optional[int] = ..., sessions: _Optional[int] = ..., snapshots: _Optional[_Iterable[_Union[SnapshotInfluence, _Mapping]]] = ..., imports_left_out: _Optional[bool] = ..., attributes: _Optional[int] = ..., recorded_requests: _Optional[int] = ...) -> None: ...

class SnapshotInfluence(_message.Message):
    __slots__ = ("snapshot_id", "in_force")
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    snapshot_id: str
    in_force: bool
    def __init__(self, snapshot_id: _Optional[str] = ..., in_force: _Optional[bool] = ...) -> None: ...
