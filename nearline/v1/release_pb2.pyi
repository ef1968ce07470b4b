import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SplitBy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SPLIT_BY_UNSPECIFIED: _ClassVar[SplitBy]
    SPLIT_BY_USER: _ClassVar[SplitBy]
    SPLIT_BY_SESSION: _ClassVar[SplitBy]
    SPLIT_BY_REQUEST: _ClassVar[SplitBy]
SPLIT_BY_UNSPECIFIED: SplitBy
SPLIT_BY_USER: SplitBy
SPLIT_BY_SESSION: SplitBy
SPLIT_BY_REQUEST: SplitBy

class Rollout(_message.Message):
    __slots__ = ("rollout_id", "split_by", "shadow", "limits", "start_time", "policies")
    ROLLOUT_ID_FIELD_NUMBER: _ClassVar[int]
    SPLIT_BY_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    rollout_id: str
    split_by: SplitBy
    shadow: bool
    limits: RolloutLimits
    start_time: _timestamp_pb2.Timestamp
    policies: str
    def __init__(self, rollout_id: _Optional[str] = ..., split_by: _Optional[_Union[SplitBy, str]] = ..., shadow: _Optional[bool] = ..., limits: _Optional[_Union[RolloutLimits, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., policies: _Optional[str] = ...) -> None: ...

class RolloutLimits(_message.Message):
    __slots__ = ("false_alarm", "latency_ratio", "min_recall", "recall_sample", "away_s", "min_effect")
    FALSE_ALARM_FIELD_NUMBER: _ClassVar[int]
    LATENCY_RATIO_FIELD_NUMBER: _ClassVar[int]
    MIN_RECALL_FIELD_NUMBER: _ClassVar[int]
    RECALL_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    AWAY_S_FIELD_NUMBER: _ClassVar[int]
    MIN_EFFECT_FIELD_NUMBER: _ClassVar[int]
    false_alarm: float
    latency_ratio: float
    min_recall: float
    recall_sample: float
    away_s: float
    min_effect: float
    def __init__(self, false_alarm: _Optional[float] = ..., latency_ratio: _Optional[float] = ..., min_recall: _Optional[float] = ..., recall_sample: _Optional[float] = ..., away_s: _Optional[float] = ..., min_effect: _Optional[float] = ...) -> None: ...

class GateVerdict(_message.Message):
    __slots__ = ("passed", "failed", "forced_because", "thresholds", "report")
    PASSED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    FORCED_BECAUSE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    passed: bool
    failed: _containers.RepeatedScalarFieldContainer[str]
    forced_because: str
    thresholds: int
    report: str
    def __init__(self, passed: _Optional[bool] = ..., failed: _Optional[_Iterable[str]] = ..., forced_because: _Optional[str] = ..., thresholds: _Optional[int] = ..., report: _Optional[str] = ...) -> None: ...

class GateThresholds(_message.Message):
    __slots__ = ("number", "who", "why", "create_time", "min_recall", "max_ndcg_loss", "min_ndcg", "min_overlap", "max_score_drift", "max_missing", "max_moved", "max_size_ratio", "max_load_ratio", "max_latency_ratio", "max_cold_growth", "min_warm_ratio", "max_recommend_loss", "max_broken_promise", "judgements_sha256")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    MIN_RECALL_FIELD_NUMBER: _ClassVar[int]
    MAX_NDCG_LOSS_FIELD_NUMBER: _ClassVar[int]
    MIN_NDCG_FIELD_NUMBER: _ClassVar[int]
    MIN_OVERLAP_FIELD_NUMBER: _ClassVar[int]
    MAX_SCORE_DRIFT_FIELD_NUMBER: _ClassVar[int]
    MAX_MISSING_FIELD_NUMBER: _ClassVar[int]
    MAX_MOVED_FIELD_NUMBER: _ClassVar[int]
    MAX_SIZE_RATIO_FIELD_NUMBER: _ClassVar[int]
    MAX_LOAD_RATIO_FIELD_NUMBER: _ClassVar[int]
    MAX_LATENCY_RATIO_FIELD_NUMBER: _ClassVar[int]
    MAX_COLD_GROWTH_FIELD_NUMBER: _ClassVar[int]
    MIN_WARM_RATIO_FIELD_NUMBER: _ClassVar[int]
    MAX_RECOMMEND_LOSS_FIELD_NUMBER: _ClassVar[int]
    MAX_BROKEN_PROMISE_FIELD_NUMBER: _ClassVar[int]
    JUDGEMENTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    number: int
    who: str
    why: str
    create_time: _timestamp_pb2.Timestamp
    min_recall: float
    max_ndcg_loss: float
    min_ndcg: float
    min_overlap: float
    max_score_drift: float
    max_missing: float
    max_moved: float
    max_size_ratio: float
    max_load_ratio: float
    max_latency_ratio: float
    max_cold_growth: float
    min_warm_ratio: float
    max_recommend_loss: float
    max_broken_promise: float
    judgements_sha256: str
    def __init__(self, number: _Optional[int] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., min_recall: _Optional[float] = ..., max_ndcg_loss: _Optional[float] = ..., min_ndcg: _Optional[float] = ..., min_overlap: _Optional[float] = ..., max_score_drift: _Optional[float] = ..., max_missing: _Optional[float] = ..., max_moved: _Optional[float] = ..., max_size_ratio: _Optional[float] = ..., max_load_ratio: _Optional[float] = ..., max_latency_ratio: _Optional[float] = ..., max_cold_growth: _Optional[float] = ..., min_warm_ratio: _Optional[float] = ..., max_recommend_loss: _Optional[float] = ..., max_broken_promise: _Optional[float] = ..., judgements_sha256: _Optional[str] = ...) -> None: ...
