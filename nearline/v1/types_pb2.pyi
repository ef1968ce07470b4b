import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Arm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ARM_UNSPECIFIED: _ClassVar[Arm]
    ARM_CURRENT: _ClassVar[Arm]
    ARM_CANARY: _ClassVar[Arm]

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_F32: _ClassVar[DataType]
    DATA_TYPE_F16: _ClassVar[DataType]
    DATA_TYPE_I8: _ClassVar[DataType]
ARM_UNSPECIFIED: Arm
ARM_CURRENT: Arm
ARM_CANARY: Arm
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_F32: DataType
DATA_TYPE_F16: DataType
DATA_TYPE_I8: DataType

class Vectors(_message.Message):
    __slots__ = ("data", "dim", "dtype")
    DATA_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    dim: int
    dtype: DataType
    def __init__(self, data: _Optional[bytes] = ..., dim: _Optional[int] = ..., dtype: _Optional[_Union[DataType, str]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("string_value", "int_value", "double_value", "bool_value", "time_value", "list_value")
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    INT_VALUE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    TIME_VALUE_FIELD_NUMBER: _ClassVar[int]
    LIST_VALUE_FIELD_NUMBER: _ClassVar[int]
    string_value: str
    int_value: int
    double_value: float
    bool_value: bool
    time_value: _timestamp_pb2.Timestamp
    list_value: ValueList
    def __init__(self, string_value: _Optional[str] = ..., int_value: _Optional[int] = ..., double_value: _Optional[float] = ..., bool_value: _Optional[bool] = ..., time_value: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., list_value: _Optional[_Union[ValueList, _Mapping]] = ...) -> None: ...

class ValueList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, values: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("all", "any", "equals", "range", "exists", "words", "phrase")
    ALL_FIELD_NUMBER: _ClassVar[int]
    ANY_FIELD_NUMBER: _ClassVar[int]
    NOT_FIELD_NUMBER: _ClassVar[int]
    EQUALS_FIELD_NUMBER: _ClassVar[int]
    IN_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    EXISTS_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    PHRASE_FIELD_NUMBER: _ClassVar[int]
    all: FilterList
    any: FilterList
    equals: FieldEquals
    range: FieldRange
    exists: FieldExists
    words: TextWords
    phrase: TextPhrase
    def __init__(self, all: _Optional[_Union[FilterList, _Mapping]] = ..., any: _Optional[_Union[FilterList, _Mapping]] = ..., equals: _Optional[_Union[FieldEquals, _Mapping]] = ..., range: _Optional[_Union[FieldRange, _Mapping]] = ..., exists: _Optional[_Union[FieldExists, _Mapping]] = ..., words: _Optional[_Union[TextWords, _Mapping]] = ..., phrase: _Optional[_Union[TextPhrase, _Mapping]] = ..., **kwargs) -> None: ...

class FilterList(_message.Message):
    __slots__ = ("filters",)
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    def __init__(self, filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ...) -> None: ...

class FieldEquals(_message.Message):
    __slots__ = ("field", "value")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    field: str
    value: Value
    def __init__(self, field: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class FieldIn(_message.Message):
    __slots__ = ("field", "values")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    field: str
    values: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, field: _Optional[str] = ..., values: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class FieldRange(_message.Message):
    __slots__ = ("field", "gte", "gt", "lte", "lt")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    GTE_FIELD_NUMBER: _ClassVar[int]
    GT_FIELD_NUMBER: _ClassVar[int]
    LTE_FIELD_NUMBER: _ClassVar[int]
    LT_FIELD_NUMBER: _ClassVar[int]
    field: str
    gte: Value
    gt: Value
    lte: Value
    lt: Value
    def __init__(self, field: _Optional[str] = ..., gte: _Optional[_Union[Value, _Mapping]] = ..., gt: _Optional[_Union[Value, _Mapping]] = ..., lte: _Optional[_Union[Value, _Mapping]] = ..., lt: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class FieldExists(_message.Message):
    __slots__ = ("field",)
    FIELD_FIELD_NUMBER: _ClassVar[int]
    field: str
    def __init__(self, field: _Optional[str] = ...) -> None: ...

class TextWords(_message.Message):
    __slots__ = ("text", "share", "similar")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    SIMILAR_FIELD_NUMBER: _ClassVar[int]
    text: str
    share: float
    similar: bool
    def __init__(self, text: _Optional[str] = ..., share: _Optional[float] = ..., similar: _Optional[bool] = ...) -> None: ...

class TextPhrase(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class Coverage(_message.Message):
    __slots__ = ("shards_answered", "shards_total", "missing_shards")
    SHARDS_ANSWERED_FIELD_NUMBER: _ClassVar[int]
    SHARDS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    MISSING_SHARDS_FIELD_NUMBER: _ClassVar[int]
    shards_answered: int
    shards_total: int
    missing_shards: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, shards_answered: _Optional[int] = ..., shards_total: _Optional[int] = ..., missing_shards: _Optional[_Iterable[int]] = ...) -> None: ...

class ServedBy(_message.Message):
    __slots__ = ("source", "rung", "reason")
    class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SOURCE_UNSPECIFIED: _ClassVar[ServedBy.Source]
        SOURCE_LIVE: _ClassVar[ServedBy.Source]
        SOURCE_CACHE: _ClassVar[ServedBy.Source]
        SOURCE_FALLBACK: _ClassVar[ServedBy.Source]
    SOURCE_UNSPECIFIED: ServedBy.Source
    SOURCE_LIVE: ServedBy.Source
    SOURCE_CACHE: ServedBy.Source
    SOURCE_FALLBACK: ServedBy.Source
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    RUNG_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    source: ServedBy.Source
    rung: str
    reason: str
    def __init__(self, source: _Optional[_Union[ServedBy.Source, str]] = ..., rung: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("embed", "search", "total")
    EMBED_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    embed: _duration_pb2.Duration
    search: _duration_pb2.Duration
    total: _duration_pb2.Duration
    def __init__(self, embed: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., search: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., total: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SearchCost(_message.Message):
    __slots__ = ("comparisons", "compute", "gpu")
    COMPARISONS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    GPU_FIELD_NUMBER: _ClassVar[int]
    comparisons: int
    compute: _duration_pb2.Duration
    gpu: bool
    def __init__(self, comparisons: _Optional[int] = ..., compute: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., gpu: _Optional[bool] = ...) -> None: ...

class ReplyInfo(_message.Message):
    __slots__ = ("epoch", "snapshot_id", "fingerprint", "watermark", "list_id", "coverage", "served_by", "timings", "arm", "cost")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    LIST_ID_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    SERVED_BY_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    snapshot_id: str
    fingerprint: str
    watermark: bytes
    list_id: str
    coverage: Coverage
    served_by: ServedBy
    timings: Timings
    arm: Arm
    cost: SearchCost
    def __init__(self, epoch: _Optional[int] = ..., snapshot_id: _Optional[str] = ..., fingerprint: _Optional[str] = ..., watermark: _Optional[bytes] = ..., list_id: _Optional[str] = ..., coverage: _Optional[_Union[Coverage, _Mapping]] = ..., served_by: _Optional[_Union[ServedBy, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., arm: _Optional[_Union[Arm, str]] = ..., cost: _Optional[_Union[SearchCost, _Mapping]] = ...) -> None: ...
