from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrendItems(_message.Message):
    __slots__ = ("ids", "scores")
    IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    scores: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, ids: _Optional[_Iterable[str]] = ..., scores: _Optional[_Iterable[float]] = ...) -> None: ...

class TrendLists(_message.Message):
    __slots__ = ("newest_us", "trained_us", "trending_days", "popular_days", "trending", "popular")
    NEWEST_US_FIELD_NUMBER: _ClassVar[int]
    TRAINED_US_FIELD_NUMBER: _ClassVar[int]
    TRENDING_DAYS_FIELD_NUMBER: _ClassVar[int]
    POPULAR_DAYS_FIELD_NUMBER: _ClassVar[int]
    TRENDING_FIELD_NUMBER: _ClassVar[int]
    POPULAR_FIELD_NUMBER: _ClassVar[int]
    newest_us: int
    trained_us: int
    trending_days: float
    popular_days: float
    trending: TrendItems
    popular: TrendItems
    def __init__(self, newest_us: _Optional[int] = ..., trained_us: _Optional[int] = ..., trending_days: _Optional[float] = ..., popular_days: _Optional[float] = ..., trending: _Optional[_Union[TrendItems, _Mapping]] = ..., popular: _Optional[_Union[TrendItems, _Mapping]] = ...) -> None: ...
