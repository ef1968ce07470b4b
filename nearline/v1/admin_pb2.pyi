import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from nearline.v1 import release_pb2 as _release_pb2
from nearline.v1 import snapshot_pb2 as _snapshot_pb2
from nearline.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateCollectionRequest(_message.Message):
    __slots__ = ("collection", "fingerprint", "dim", "metric", "shards", "language", "chunk_tokens", "attributes", "who", "why", "search_weights", "synonyms", "search_languages")
    class SearchWeightsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class SearchLanguagesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    SEARCH_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    SYNONYMS_FIELD_NUMBER: _ClassVar[int]
    SEARCH_LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    collection: str
    fingerprint: str
    dim: int
    metric: str
    shards: int
    language: str
    chunk_tokens: int
    attributes: _containers.RepeatedCompositeFieldContainer[_snapshot_pb2.AttributeField]
    who: str
    why: str
    search_weights: _containers.ScalarMap[str, float]
    synonyms: _containers.RepeatedScalarFieldContainer[str]
    search_languages: _containers.ScalarMap[str, str]
    def __init__(self, collection: _Optional[str] = ..., fingerprint: _Optional[str] = ..., dim: _Optional[int] = ..., metric: _Optional[str] = ..., shards: _Optional[int] = ..., language: _Optional[str] = ..., chunk_tokens: _Optional[int] = ..., attributes: _Optional[_Iterable[_Union[_snapshot_pb2.AttributeField, _Mapping]]] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., search_weights: _Optional[_Mapping[str, float]] = ..., synonyms: _Optional[_Iterable[str]] = ..., search_languages: _Optional[_Mapping[str, str]] = ...) -> None: ...

class CreateCollectionResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ...) -> None: ...

class Collection(_message.Message):
    __slots__ = ("name", "snapshot_time", "epoch", "snapshot_id", "embedder", "dim", "metric", "shards", "language", "attributes", "documents", "served", "names", "search_weights", "synonym_rules", "search_languages")
    class SearchWeightsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class SearchLanguagesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_TIME_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    EMBEDDER_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    SEARCH_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    SYNONYM_RULES_FIELD_NUMBER: _ClassVar[int]
    SEARCH_LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    name: str
    snapshot_time: _timestamp_pb2.Timestamp
    epoch: int
    snapshot_id: str
    embedder: _snapshot_pb2.EmbedderCard
    dim: int
    metric: str
    shards: int
    language: str
    attributes: _containers.RepeatedCompositeFieldContainer[_snapshot_pb2.AttributeField]
    documents: int
    served: bool
    names: _containers.RepeatedScalarFieldContainer[str]
    search_weights: _containers.ScalarMap[str, float]
    synonym_rules: int
    search_languages: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., snapshot_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., epoch: _Optional[int] = ..., snapshot_id: _Optional[str] = ..., embedder: _Optional[_Union[_snapshot_pb2.EmbedderCard, _Mapping]] = ..., dim: _Optional[int] = ..., metric: _Optional[str] = ..., shards: _Optional[int] = ..., language: _Optional[str] = ..., attributes: _Optional[_Iterable[_Union[_snapshot_pb2.AttributeField, _Mapping]]] = ..., documents: _Optional[int] = ..., served: _Optional[bool] = ..., names: _Optional[_Iterable[str]] = ..., search_weights: _Optional[_Mapping[str, float]] = ..., synonym_rules: _Optional[int] = ..., search_languages: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCollectionsResponse(_message.Message):
    __slots__ = ("collections", "next_page_token")
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.RepeatedCompositeFieldContainer[Collection]
    next_page_token: str
    def __init__(self, collections: _Optional[_Iterable[_Union[Collection, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetCollectionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class GetCollectionResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ...) -> None: ...

class DropCollectionRequest(_message.Message):
    __slots__ = ("collection", "who", "why")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    collection: str
    who: str
    why: str
    def __init__(self, collection: _Optional[str] = ..., who: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class DropCollectionResponse(_message.Message):
    __slots__ = ("snapshots", "documents", "redis_keys", "epoch", "cancelled_jobs", "dead_letters")
    SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    REDIS_KEYS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_JOBS_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    snapshots: int
    documents: int
    redis_keys: int
    epoch: int
    cancelled_jobs: int
    dead_letters: int
    def __init__(self, snapshots: _Optional[int] = ..., documents: _Optional[int] = ..., redis_keys: _Optional[int] = ..., epoch: _Optional[int] = ..., cancelled_jobs: _Optional[int] = ..., dead_letters: _Optional[int] = ...) -> None: ...

class SetCollectionNameRequest(_message.Message):
    __slots__ = ("collection", "target", "who", "why")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    collection: str
    target: str
    who: str
    why: str
    def __init__(self, collection: _Optional[str] = ..., target: _Optional[str] = ..., who: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class SetCollectionNameResponse(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class NameSet(_message.Message):
    __slots__ = ("number", "targets", "who", "why", "create_time")
    class TargetsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    number: int
    targets: _containers.ScalarMap[str, str]
    who: str
    why: str
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, number: _Optional[int] = ..., targets: _Optional[_Mapping[str, str]] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class PolicySet(_message.Message):
    __slots__ = ("number", "toml", "who", "why", "create_time")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TOML_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    number: int
    toml: str
    who: str
    why: str
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, number: _Optional[int] = ..., toml: _Optional[str] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetPoliciesRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class GetPoliciesResponse(_message.Message):
    __slots__ = ("policies",)
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    policies: PolicySet
    def __init__(self, policies: _Optional[_Union[PolicySet, _Mapping]] = ...) -> None: ...

class SetPoliciesRequest(_message.Message):
    __slots__ = ("collection", "toml", "expected_number", "who", "why")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TOML_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_NUMBER_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    collection: str
    toml: str
    expected_number: int
    who: str
    why: str
    def __init__(self, collection: _Optional[str] = ..., toml: _Optional[str] = ..., expected_number: _Optional[int] = ..., who: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class SetPoliciesResponse(_message.Message):
    __slots__ = ("policies",)
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    policies: PolicySet
    def __init__(self, policies: _Optional[_Union[PolicySet, _Mapping]] = ...) -> None: ...

class ListSnapshotsRequest(_message.Message):
    __slots__ = ("collection", "page_size", "page_token")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    collection: str
    page_size: int
    page_token: str
    def __init__(self, collection: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListSnapshotsResponse(_message.Message):
    __slots__ = ("snapshots", "next_page_token")
    SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    snapshots: _containers.RepeatedCompositeFieldContainer[_snapshot_pb2.Manifest]
    next_page_token: str
    def __init__(self, snapshots: _Optional[_Iterable[_Union[_snapshot_pb2.Manifest, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetSnapshotRequest(_message.Message):
    __slots__ = ("collection", "snapshot_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    snapshot_id: str
    def __init__(self, collection: _Optional[str] = ..., snapshot_id: _Optional[str] = ...) -> None: ...

class GetSnapshotResponse(_message.Message):
    __slots__ = ("snapshot",)
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    snapshot: _snapshot_pb2.Manifest
    def __init__(self, snapshot: _Optional[_Union[_snapshot_pb2.Manifest, _Mapping]] = ...) -> None: ...

class GetAliasesRequest(_message.Message):
    __slots__ = ("collection", "history")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    collection: str
    history: int
    def __init__(self, collection: _Optional[str] = ..., history: _Optional[int] = ...) -> None: ...

class GetAliasesResponse(_message.Message):
    __slots__ = ("in_force", "history")
    IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    in_force: _snapshot_pb2.AliasRecord
    history: _containers.RepeatedCompositeFieldContainer[_snapshot_pb2.AliasRecord]
    def __init__(self, in_force: _Optional[_Union[_snapshot_pb2.AliasRecord, _Mapping]] = ..., history: _Optional[_Iterable[_Union[_snapshot_pb2.AliasRecord, _Mapping]]] = ...) -> None: ...

class GetServingStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CollectionStatus(_message.Message):
    __slots__ = ("collection", "epoch", "snapshot_id", "fingerprint", "documents", "chunks", "shards_total", "shards_ready", "newest_epoch", "newest_snapshot_id", "problem", "loaded_snapshot_ids", "replicas_ready", "live", "canary_snapshot_id", "training")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SHARDS_READY_FIELD_NUMBER: _ClassVar[int]
    NEWEST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    NEWEST_SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    LOADED_SNAPSHOT_IDS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_READY_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    CANARY_SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    collection: str
    epoch: int
    snapshot_id: str
    fingerprint: str
    documents: int
    chunks: int
    shards_total: int
    shards_ready: int
    newest_epoch: int
    newest_snapshot_id: str
    problem: str
    loaded_snapshot_ids: _containers.RepeatedScalarFieldContainer[str]
    replicas_ready: _containers.RepeatedScalarFieldContainer[int]
    live: LiveStatus
    canary_snapshot_id: str
    training: TrainingStatus
    def __init__(self, collection: _Optional[str] = ..., epoch: _Optional[int] = ..., snapshot_id: _Optional[str] = ..., fingerprint: _Optional[str] = ..., documents: _Optional[int] = ..., chunks: _Optional[int] = ..., shards_total: _Optional[int] = ..., shards_ready: _Optional[int] = ..., newest_epoch: _Optional[int] = ..., newest_snapshot_id: _Optional[str] = ..., problem: _Optional[str] = ..., loaded_snapshot_ids: _Optional[_Iterable[str]] = ..., replicas_ready: _Optional[_Iterable[int]] = ..., live: _Optional[_Union[LiveStatus, _Mapping]] = ..., canary_snapshot_id: _Optional[str] = ..., training: _Optional[_Union[TrainingStatus, _Mapping]] = ...) -> None: ...

class TrainingStatus(_message.Message):
    __slots__ = ("recorded", "needed", "trained", "newest_time", "progress", "problem")
    RECORDED_FIELD_NUMBER: _ClassVar[int]
    NEEDED_FIELD_NUMBER: _ClassVar[int]
    TRAINED_FIELD_NUMBER: _ClassVar[int]
    NEWEST_TIME_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    recorded: int
    needed: int
    trained: int
    newest_time: _timestamp_pb2.Timestamp
    progress: str
    problem: str
    def __init__(self, recorded: _Optional[int] = ..., needed: _Optional[int] = ..., trained: _Optional[int] = ..., newest_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., progress: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

class LiveStatus(_message.Message):
    __slots__ = ("log_id", "problem", "rows", "hidden_rows", "behind", "oldest_change_time", "archive_time", "not_archived")
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_ROWS_FIELD_NUMBER: _ClassVar[int]
    BEHIND_FIELD_NUMBER: _ClassVar[int]
    OLDEST_CHANGE_TIME_FIELD_NUMBER: _ClassVar[int]
    ARCHIVE_TIME_FIELD_NUMBER: _ClassVar[int]
    NOT_ARCHIVED_FIELD_NUMBER: _ClassVar[int]
    log_id: str
    problem: str
    rows: int
    hidden_rows: int
    behind: int
    oldest_change_time: _timestamp_pb2.Timestamp
    archive_time: _timestamp_pb2.Timestamp
    not_archived: int
    def __init__(self, log_id: _Optional[str] = ..., problem: _Optional[str] = ..., rows: _Optional[int] = ..., hidden_rows: _Optional[int] = ..., behind: _Optional[int] = ..., oldest_change_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., archive_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., not_archived: _Optional[int] = ...) -> None: ...

class WatchedResource(_message.Message):
    __slots__ = ("name", "free_bytes", "total_bytes", "needed_bytes", "problem")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    NEEDED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    name: str
    free_bytes: int
    total_bytes: int
    needed_bytes: int
    problem: str
    def __init__(self, name: _Optional[str] = ..., free_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ..., needed_bytes: _Optional[int] = ..., problem: _Optional[str] = ...) -> None: ...

class GetServingStatusResponse(_message.Message):
    __slots__ = ("collections", "nearline_version", "warning", "resources")
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    NEARLINE_VERSION_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.RepeatedCompositeFieldContainer[CollectionStatus]
    nearline_version: str
    warning: str
    resources: _containers.RepeatedCompositeFieldContainer[WatchedResource]
    def __init__(self, collections: _Optional[_Iterable[_Union[CollectionStatus, _Mapping]]] = ..., nearline_version: _Optional[str] = ..., warning: _Optional[str] = ..., resources: _Optional[_Iterable[_Union[WatchedResource, _Mapping]]] = ...) -> None: ...

class PromoteSnapshotRequest(_message.Message):
    __slots__ = ("collection", "snapshot_id", "expected_epoch", "who", "why", "gate")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_EPOCH_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    snapshot_id: str
    expected_epoch: int
    who: str
    why: str
    gate: _release_pb2.GateVerdict
    def __init__(self, collection: _Optional[str] = ..., snapshot_id: _Optional[str] = ..., expected_epoch: _Optional[int] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., gate: _Optional[_Union[_release_pb2.GateVerdict, _Mapping]] = ...) -> None: ...

class PromoteSnapshotResponse(_message.Message):
    __slots__ = ("record",)
    RECORD_FIELD_NUMBER: _ClassVar[int]
    record: _snapshot_pb2.AliasRecord
    def __init__(self, record: _Optional[_Union[_snapshot_pb2.AliasRecord, _Mapping]] = ...) -> None: ...

class RollbackSnapshotRequest(_message.Message):
    __slots__ = ("collection", "expected_epoch", "who", "why")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_EPOCH_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    collection: str
    expected_epoch: int
    who: str
    why: str
    def __init__(self, collection: _Optional[str] = ..., expected_epoch: _Optional[int] = ..., who: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class RollbackSnapshotResponse(_message.Message):
    __slots__ = ("record",)
    RECORD_FIELD_NUMBER: _ClassVar[int]
    record: _snapshot_pb2.AliasRecord
    def __init__(self, record: _Optional[_Union[_snapshot_pb2.AliasRecord, _Mapping]] = ...) -> None: ...

class SetTrafficSplitRequest(_message.Message):
    __slots__ = ("collection", "canary_snapshot_id", "canary_share", "expected_epoch", "who", "why", "rollout", "gate")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    CANARY_SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    CANARY_SHARE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_EPOCH_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    canary_snapshot_id: str
    canary_share: float
    expected_epoch: int
    who: str
    why: str
    rollout: _release_pb2.Rollout
    gate: _release_pb2.GateVerdict
    def __init__(self, collection: _Optional[str] = ..., canary_snapshot_id: _Optional[str] = ..., canary_share: _Optional[float] = ..., expected_epoch: _Optional[int] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., rollout: _Optional[_Union[_release_pb2.Rollout, _Mapping]] = ..., gate: _Optional[_Union[_release_pb2.GateVerdict, _Mapping]] = ...) -> None: ...

class SetTrafficSplitResponse(_message.Message):
    __slots__ = ("record",)
    RECORD_FIELD_NUMBER: _ClassVar[int]
    record: _snapshot_pb2.AliasRecord
    def __init__(self, record: _Optional[_Union[_snapshot_pb2.AliasRecord, _Mapping]] = ...) -> None: ...

class GetRolloutStatusRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class ArmStatus(_message.Message):
    __slots__ = ("arm", "snapshot_id", "requests", "errors", "units", "p50_ms", "p99_ms", "recall_samples", "recall", "lists", "clicks", "conversions")
    ARM_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    P50_MS_FIELD_NUMBER: _ClassVar[int]
    P99_MS_FIELD_NUMBER: _ClassVar[int]
    RECALL_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    LISTS_FIELD_NUMBER: _ClassVar[int]
    CLICKS_FIELD_NUMBER: _ClassVar[int]
    CONVERSIONS_FIELD_NUMBER: _ClassVar[int]
    arm: _types_pb2.Arm
    snapshot_id: str
    requests: int
    errors: int
    units: int
    p50_ms: float
    p99_ms: float
    recall_samples: int
    recall: float
    lists: int
    clicks: int
    conversions: int
    def __init__(self, arm: _Optional[_Union[_types_pb2.Arm, str]] = ..., snapshot_id: _Optional[str] = ..., requests: _Optional[int] = ..., errors: _Optional[int] = ..., units: _Optional[int] = ..., p50_ms: _Optional[float] = ..., p99_ms: _Optional[float] = ..., recall_samples: _Optional[int] = ..., recall: _Optional[float] = ..., lists: _Optional[int] = ..., clicks: _Optional[int] = ..., conversions: _Optional[int] = ...) -> None: ...

class RolloutTest(_message.Message):
    __slots__ = ("name", "evidence", "limit", "seen")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    evidence: float
    limit: float
    seen: str
    def __init__(self, name: _Optional[str] = ..., evidence: _Optional[float] = ..., limit: _Optional[float] = ..., seen: _Optional[str] = ...) -> None: ...

class RateVerdict(_message.Message):
    __slots__ = ("rate", "verdict", "evidence", "limit", "held_back", "tenant", "lists_needed")
    RATE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    HELD_BACK_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    LISTS_NEEDED_FIELD_NUMBER: _ClassVar[int]
    rate: str
    verdict: str
    evidence: float
    limit: float
    held_back: str
    tenant: str
    lists_needed: int
    def __init__(self, rate: _Optional[str] = ..., verdict: _Optional[str] = ..., evidence: _Optional[float] = ..., limit: _Optional[float] = ..., held_back: _Optional[str] = ..., tenant: _Optional[str] = ..., lists_needed: _Optional[int] = ...) -> None: ...

class GetRolloutStatusResponse(_message.Message):
    __slots__ = ("in_force", "running", "problem", "arms", "tests", "compared", "overlap", "proposed_snapshot_id", "proposal_reason", "verdicts")
    IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    TESTS_FIELD_NUMBER: _ClassVar[int]
    COMPARED_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_FIELD_NUMBER: _ClassVar[int]
    PROPOSED_SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    PROPOSAL_REASON_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    in_force: _snapshot_pb2.AliasRecord
    running: bool
    problem: str
    arms: _containers.RepeatedCompositeFieldContainer[ArmStatus]
    tests: _containers.RepeatedCompositeFieldContainer[RolloutTest]
    compared: int
    overlap: float
    proposed_snapshot_id: str
    proposal_reason: str
    verdicts: _containers.RepeatedCompositeFieldContainer[RateVerdict]
    def __init__(self, in_force: _Optional[_Union[_snapshot_pb2.AliasRecord, _Mapping]] = ..., running: _Optional[bool] = ..., problem: _Optional[str] = ..., arms: _Optional[_Iterable[_Union[ArmStatus, _Mapping]]] = ..., tests: _Optional[_Iterable[_Union[RolloutTest, _Mapping]]] = ..., compared: _Optional[int] = ..., overlap: _Optional[float] = ..., proposed_snapshot_id: _Optional[str] = ..., proposal_reason: _Optional[str] = ..., verdicts: _Optional[_Iterable[_Union[RateVerdict, _Mapping]]] = ...) -> None: ...
