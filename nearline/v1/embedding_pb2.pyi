import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from nearline.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TextRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TEXT_ROLE_UNSPECIFIED: _ClassVar[TextRole]
    TEXT_ROLE_QUERY: _ClassVar[TextRole]
    TEXT_ROLE_DOCUMENT: _ClassVar[TextRole]

class Lane(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LANE_UNSPECIFIED: _ClassVar[Lane]
    LANE_INTERACTIVE: _ClassVar[Lane]
    LANE_BULK: _ClassVar[Lane]
TEXT_ROLE_UNSPECIFIED: TextRole
TEXT_ROLE_QUERY: TextRole
TEXT_ROLE_DOCUMENT: TextRole
LANE_UNSPECIFIED: Lane
LANE_INTERACTIVE: Lane
LANE_BULK: Lane

class EmbedRequest(_message.Message):
    __slots__ = ("texts", "role", "dimensions", "expected_fingerprint", "lane", "dtype")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    role: TextRole
    dimensions: int
    expected_fingerprint: str
    lane: Lane
    dtype: _types_pb2.DataType
    def __init__(self, texts: _Optional[_Iterable[str]] = ..., role: _Optional[_Union[TextRole, str]] = ..., dimensions: _Optional[int] = ..., expected_fingerprint: _Optional[str] = ..., lane: _Optional[_Union[Lane, str]] = ..., dtype: _Optional[_Union[_types_pb2.DataType, str]] = ...) -> None: ...

class TextReport(_message.Message):
    __slots__ = ("tokens", "truncated")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    tokens: int
    truncated: bool
    def __init__(self, tokens: _Optional[int] = ..., truncated: _Optional[bool] = ...) -> None: ...

class EmbedTimings(_message.Message):
    __slots__ = ("tokenize", "queue", "inference")
    TOKENIZE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_FIELD_NUMBER: _ClassVar[int]
    tokenize: _duration_pb2.Duration
    queue: _duration_pb2.Duration
    inference: _duration_pb2.Duration
    def __init__(self, tokenize: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., queue: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., inference: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("vectors", "fingerprint", "reports", "timings", "served_by")
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    SERVED_BY_FIELD_NUMBER: _ClassVar[int]
    vectors: _types_pb2.Vectors
    fingerprint: str
    reports: _containers.RepeatedCompositeFieldContainer[TextReport]
    timings: EmbedTimings
    served_by: _types_pb2.ServedBy
    def __init__(self, vectors: _Optional[_Union[_types_pb2.Vectors, _Mapping]] = ..., fingerprint: _Optional[str] = ..., reports: _Optional[_Iterable[_Union[TextReport, _Mapping]]] = ..., timings: _Optional[_Union[EmbedTimings, _Mapping]] = ..., served_by: _Optional[_Union[_types_pb2.ServedBy, _Mapping]] = ...) -> None: ...

class EmbedStreamRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: EmbedRequest
    def __init__(self, request: _Optional[_Union[EmbedRequest, _Mapping]] = ...) -> None: ...

class EmbedStreamResponse(_message.Message):
    __slots__ = ("response",)
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    response: EmbedResponse
    def __init__(self, response: _Optional[_Union[EmbedResponse, _Mapping]] = ...) -> None: ...

class RerankRequest(_message.Message):
    __slots__ = ("query", "texts", "lane", "snapshot")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    query: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    lane: Lane
    snapshot: str
    def __init__(self, query: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., lane: _Optional[_Union[Lane, str]] = ..., snapshot: _Optional[str] = ...) -> None: ...

class RerankResponse(_message.Message):
    __slots__ = ("scores", "fingerprint", "served_by")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    SERVED_BY_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    fingerprint: str
    served_by: _types_pb2.ServedBy
    def __init__(self, scores: _Optional[_Iterable[float]] = ..., fingerprint: _Optional[str] = ..., served_by: _Optional[_Union[_types_pb2.ServedBy, _Mapping]] = ...) -> None: ...

class EntailRequest(_message.Message):
    __slots__ = ("premises", "hypotheses", "lane")
    PREMISES_FIELD_NUMBER: _ClassVar[int]
    HYPOTHESES_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    premises: _containers.RepeatedScalarFieldContainer[str]
    hypotheses: _containers.RepeatedScalarFieldContainer[str]
    lane: Lane
    def __init__(self, premises: _Optional[_Iterable[str]] = ..., hypotheses: _Optional[_Iterable[str]] = ..., lane: _Optional[_Union[Lane, str]] = ...) -> None: ...

class EntailResponse(_message.Message):
    __slots__ = ("entailment", "contradiction", "fingerprint", "served_by")
    ENTAILMENT_FIELD_NUMBER: _ClassVar[int]
    CONTRADICTION_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    SERVED_BY_FIELD_NUMBER: _ClassVar[int]
    entailment: _containers.RepeatedScalarFieldContainer[float]
    contradiction: _containers.RepeatedScalarFieldContainer[float]
    fingerprint: str
    served_by: _types_pb2.ServedBy
    def __init__(self, entailment: _Optional[_Iterable[float]] = ..., contradiction: _Optional[_Iterable[float]] = ..., fingerprint: _Optional[str] = ..., served_by: _Optional[_Union[_types_pb2.ServedBy, _Mapping]] = ...) -> None: ...

class GetInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetInfoResponse(_message.Message):
    __slots__ = ("model", "fingerprint", "dim", "max_tokens", "max_texts", "max_characters", "max_queued_tokens", "backend", "min_cosine", "tokens_per_second", "query_prompt", "document_prompt", "reranker", "reranker_fingerprint", "entailment", "entailment_fingerprint")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_TEXTS_FIELD_NUMBER: _ClassVar[int]
    MAX_CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    MIN_COSINE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    QUERY_PROMPT_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_PROMPT_FIELD_NUMBER: _ClassVar[int]
    RERANKER_FIELD_NUMBER: _ClassVar[int]
    RERANKER_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    ENTAILMENT_FIELD_NUMBER: _ClassVar[int]
    ENTAILMENT_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    model: str
    fingerprint: str
    dim: int
    max_tokens: int
    max_texts: int
    max_characters: int
    max_queued_tokens: int
    backend: str
    min_cosine: float
    tokens_per_second: float
    query_prompt: str
    document_prompt: str
    reranker: str
    reranker_fingerprint: str
    entailment: str
    entailment_fingerprint: str
    def __init__(self, model: _Optional[str] = ..., fingerprint: _Optional[str] = ..., dim: _Optional[int] = ..., max_tokens: _Optional[int] = ..., max_texts: _Optional[int] = ..., max_characters: _Optional[int] = ..., max_queued_tokens: _Optional[int] = ..., backend: _Optional[str] = ..., min_cosine: _Optional[float] = ..., tokens_per_second: _Optional[float] = ..., query_prompt: _Optional[str] = ..., document_prompt: _Optional[str] = ..., reranker: _Optional[str] = ..., reranker_fingerprint: _Optional[str] = ..., entailment: _Optional[str] = ..., entailment_fingerprint: _Optional[str] = ...) -> None: ...
