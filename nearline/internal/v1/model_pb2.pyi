import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from nearline.v1 import snapshot_pb2 as _snapshot_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelStage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STAGE_UNSPECIFIED: _ClassVar[ModelStage]
    MODEL_STAGE_CANDIDATE: _ClassVar[ModelStage]
    MODEL_STAGE_CANARY: _ClassVar[ModelStage]
    MODEL_STAGE_PRODUCTION: _ClassVar[ModelStage]
    MODEL_STAGE_RETIRED: _ClassVar[ModelStage]
MODEL_STAGE_UNSPECIFIED: ModelStage
MODEL_STAGE_CANDIDATE: ModelStage
MODEL_STAGE_CANARY: ModelStage
MODEL_STAGE_PRODUCTION: ModelStage
MODEL_STAGE_RETIRED: ModelStage

class ModelCard(_message.Message):
    __slots__ = ("ref", "create_time", "who", "description", "training_data_sha256", "metrics", "settings", "parents", "snapshot_id", "collection", "files")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REF_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    TRAINING_DATA_SHA256_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    ref: _snapshot_pb2.ModelRef
    create_time: _timestamp_pb2.Timestamp
    who: str
    description: str
    training_data_sha256: str
    metrics: _containers.ScalarMap[str, float]
    settings: _containers.ScalarMap[str, str]
    parents: _containers.RepeatedCompositeFieldContainer[_snapshot_pb2.ModelRef]
    snapshot_id: str
    collection: str
    files: _containers.RepeatedCompositeFieldContainer[_snapshot_pb2.FileEntry]
    def __init__(self, ref: _Optional[_Union[_snapshot_pb2.ModelRef, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., who: _Optional[str] = ..., description: _Optional[str] = ..., training_data_sha256: _Optional[str] = ..., metrics: _Optional[_Mapping[str, float]] = ..., settings: _Optional[_Mapping[str, str]] = ..., parents: _Optional[_Iterable[_Union[_snapshot_pb2.ModelRef, _Mapping]]] = ..., snapshot_id: _Optional[str] = ..., collection: _Optional[str] = ..., files: _Optional[_Iterable[_Union[_snapshot_pb2.FileEntry, _Mapping]]] = ...) -> None: ...

class StageRecord(_message.Message):
    __slots__ = ("number", "version", "stage", "who", "why", "create_time")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    number: int
    version: int
    stage: ModelStage
    who: str
    why: str
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, number: _Optional[int] = ..., version: _Optional[int] = ..., stage: _Optional[_Union[ModelStage, str]] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
