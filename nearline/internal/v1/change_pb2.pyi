import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from nearline.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Watermark(_message.Message):
    __slots__ = ("log_id", "positions")
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    log_id: str
    positions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, log_id: _Optional[str] = ..., positions: _Optional[_Iterable[int]] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("document_id", "kind", "title", "text", "attributes", "starts", "ends", "vectors", "expire_time")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Change.Kind]
        KIND_UPSERT: _ClassVar[Change.Kind]
        KIND_DELETE: _ClassVar[Change.Kind]
        KIND_ATTRIBUTES: _ClassVar[Change.Kind]
    KIND_UNSPECIFIED: Change.Kind
    KIND_UPSERT: Change.Kind
    KIND_DELETE: Change.Kind
    KIND_ATTRIBUTES: Change.Kind
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _types_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.Value, _Mapping]] = ...) -> None: ...
    class VectorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _types_pb2.Vectors
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.Vectors, _Mapping]] = ...) -> None: ...
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    STARTS_FIELD_NUMBER: _ClassVar[int]
    ENDS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    document_id: str
    kind: Change.Kind
    title: str
    text: str
    attributes: _containers.MessageMap[str, _types_pb2.Value]
    starts: _containers.RepeatedScalarFieldContainer[int]
    ends: _containers.RepeatedScalarFieldContainer[int]
    vectors: _containers.MessageMap[str, _types_pb2.Vectors]
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, document_id: _Optional[str] = ..., kind: _Optional[_Union[Change.Kind, str]] = ..., title: _Optional[str] = ..., text: _Optional[str] = ..., attributes: _Optional[_Mapping[str, _types_pb2.Value]] = ..., starts: _Optional[_Iterable[int]] = ..., ends: _Optional[_Iterable[int]] = ..., vectors: _Optional[_Mapping[str, _types_pb2.Vectors]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class LogRecord(_message.Message):
    __slots__ = ("number", "log_id", "follows", "who", "why", "create_time")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    FOLLOWS_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    number: int
    log_id: str
    follows: str
    who: str
    why: str
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, number: _Optional[int] = ..., log_id: _Optional[str] = ..., follows: _Optional[str] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
