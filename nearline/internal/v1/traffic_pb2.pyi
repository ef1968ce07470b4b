import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from nearline.v1 import retrieval_pb2 as _retrieval_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RecordedRequest(_message.Message):
    __slots__ = ("time", "snapshot_id", "fingerprint", "search", "recommend", "vector", "ids", "scores", "personal", "list_id")
    TIME_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    RECOMMEND_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PERSONAL_FIELD_NUMBER: _ClassVar[int]
    LIST_ID_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    snapshot_id: str
    fingerprint: str
    search: _retrieval_pb2.SearchRequest
    recommend: _retrieval_pb2.RecommendRequest
    vector: bytes
    ids: _containers.RepeatedScalarFieldContainer[str]
    scores: _containers.RepeatedScalarFieldContainer[float]
    personal: bool
    list_id: str
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., snapshot_id: _Optional[str] = ..., fingerprint: _Optional[str] = ..., search: _Optional[_Union[_retrieval_pb2.SearchRequest, _Mapping]] = ..., recommend: _Optional[_Union[_retrieval_pb2.RecommendRequest, _Mapping]] = ..., vector: _Optional[bytes] = ..., ids: _Optional[_Iterable[str]] = ..., scores: _Optional[_Iterable[float]] = ..., personal: _Optional[bool] = ..., list_id: _Optional[str] = ...) -> None: ...
