import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from nearline.v1 import retrieval_pb2 as _retrieval_pb2
from nearline.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Strictness(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STRICTNESS_UNSPECIFIED: _ClassVar[Strictness]
    STRICTNESS_STRICT: _ClassVar[Strictness]
    STRICTNESS_BALANCED: _ClassVar[Strictness]
    STRICTNESS_LENIENT: _ClassVar[Strictness]

class UnsupportedPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNSUPPORTED_POLICY_UNSPECIFIED: _ClassVar[UnsupportedPolicy]
    UNSUPPORTED_POLICY_DROP: _ClassVar[UnsupportedPolicy]
    UNSUPPORTED_POLICY_MARK: _ClassVar[UnsupportedPolicy]

class RefusalPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFUSAL_POLICY_UNSPECIFIED: _ClassVar[RefusalPolicy]
    REFUSAL_POLICY_REFUSE: _ClassVar[RefusalPolicy]
    REFUSAL_POLICY_ANSWER: _ClassVar[RefusalPolicy]
STRICTNESS_UNSPECIFIED: Strictness
STRICTNESS_STRICT: Strictness
STRICTNESS_BALANCED: Strictness
STRICTNESS_LENIENT: Strictness
UNSUPPORTED_POLICY_UNSPECIFIED: UnsupportedPolicy
UNSUPPORTED_POLICY_DROP: UnsupportedPolicy
UNSUPPORTED_POLICY_MARK: UnsupportedPolicy
REFUSAL_POLICY_UNSPECIFIED: RefusalPolicy
REFUSAL_POLICY_REFUSE: RefusalPolicy
REFUSAL_POLICY_ANSWER: RefusalPolicy

class GenerateRequest(_message.Message):
    __slots__ = ("collection", "question", "filter", "mode", "max_tokens", "documents", "refusal_policy", "session_id", "session_version", "history", "backend", "temperature", "unsupported_policy", "fresh", "min_watermark", "strictness")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_POLICY_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_VERSION_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    UNSUPPORTED_POLICY_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    MIN_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    STRICTNESS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    question: str
    filter: _types_pb2.Filter
    mode: _retrieval_pb2.SearchMode
    max_tokens: int
    documents: int
    refusal_policy: RefusalPolicy
    session_id: str
    session_version: int
    history: _containers.RepeatedCompositeFieldContainer[Turn]
    backend: str
    temperature: float
    unsupported_policy: UnsupportedPolicy
    fresh: bool
    min_watermark: bytes
    strictness: Strictness
    def __init__(self, collection: _Optional[str] = ..., question: _Optional[str] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., mode: _Optional[_Union[_retrieval_pb2.SearchMode, str]] = ..., max_tokens: _Optional[int] = ..., documents: _Optional[int] = ..., refusal_policy: _Optional[_Union[RefusalPolicy, str]] = ..., session_id: _Optional[str] = ..., session_version: _Optional[int] = ..., history: _Optional[_Iterable[_Union[Turn, _Mapping]]] = ..., backend: _Optional[str] = ..., temperature: _Optional[float] = ..., unsupported_policy: _Optional[_Union[UnsupportedPolicy, str]] = ..., fresh: _Optional[bool] = ..., min_watermark: _Optional[bytes] = ..., strictness: _Optional[_Union[Strictness, str]] = ...) -> None: ...

class Turn(_message.Message):
    __slots__ = ("question", "answer", "condensed", "snapshot_id", "time")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    CONDENSED_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    question: str
    answer: str
    condensed: str
    snapshot_id: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, question: _Optional[str] = ..., answer: _Optional[str] = ..., condensed: _Optional[str] = ..., snapshot_id: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("evidence", "delta", "citation", "done", "refusal", "usage")
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    CITATION_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    evidence: EvidenceEvent
    delta: DeltaEvent
    citation: Citation
    done: DoneEvent
    refusal: RefusalEvent
    usage: UsageEvent
    def __init__(self, evidence: _Optional[_Union[EvidenceEvent, _Mapping]] = ..., delta: _Optional[_Union[DeltaEvent, _Mapping]] = ..., citation: _Optional[_Union[Citation, _Mapping]] = ..., done: _Optional[_Union[DoneEvent, _Mapping]] = ..., refusal: _Optional[_Union[RefusalEvent, _Mapping]] = ..., usage: _Optional[_Union[UsageEvent, _Mapping]] = ...) -> None: ...

class EvidenceEvent(_message.Message):
    __slots__ = ("documents", "info", "condensed")
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    CONDENSED_FIELD_NUMBER: _ClassVar[int]
    documents: _containers.RepeatedCompositeFieldContainer[_retrieval_pb2.Hit]
    info: _types_pb2.ReplyInfo
    condensed: str
    def __init__(self, documents: _Optional[_Iterable[_Union[_retrieval_pb2.Hit, _Mapping]]] = ..., info: _Optional[_Union[_types_pb2.ReplyInfo, _Mapping]] = ..., condensed: _Optional[str] = ...) -> None: ...

class DeltaEvent(_message.Message):
    __slots__ = ("text", "unsupported", "problems")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    UNSUPPORTED_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    text: str
    unsupported: bool
    problems: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, text: _Optional[str] = ..., unsupported: _Optional[bool] = ..., problems: _Optional[_Iterable[str]] = ...) -> None: ...

class Citation(_message.Message):
    __slots__ = ("number", "document_id", "chunk", "char_start", "char_end", "text_hash", "snapshot_id", "title", "support")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    CHAR_START_FIELD_NUMBER: _ClassVar[int]
    CHAR_END_FIELD_NUMBER: _ClassVar[int]
    TEXT_HASH_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SUPPORT_FIELD_NUMBER: _ClassVar[int]
    number: int
    document_id: str
    chunk: int
    char_start: int
    char_end: int
    text_hash: str
    snapshot_id: str
    title: str
    support: float
    def __init__(self, number: _Optional[int] = ..., document_id: _Optional[str] = ..., chunk: _Optional[int] = ..., char_start: _Optional[int] = ..., char_end: _Optional[int] = ..., text_hash: _Optional[str] = ..., snapshot_id: _Optional[str] = ..., title: _Optional[str] = ..., support: _Optional[float] = ...) -> None: ...

class UsageEvent(_message.Message):
    __slots__ = ("prompt_tokens", "completion_tokens", "cost", "retrieval_s", "first_delta_s", "total_s", "attempts")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_S_FIELD_NUMBER: _ClassVar[int]
    FIRST_DELTA_S_FIELD_NUMBER: _ClassVar[int]
    TOTAL_S_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    completion_tokens: int
    cost: float
    retrieval_s: float
    first_delta_s: float
    total_s: float
    attempts: _containers.RepeatedCompositeFieldContainer[Attempt]
    def __init__(self, prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., cost: _Optional[float] = ..., retrieval_s: _Optional[float] = ..., first_delta_s: _Optional[float] = ..., total_s: _Optional[float] = ..., attempts: _Optional[_Iterable[_Union[Attempt, _Mapping]]] = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("backend", "failure", "seconds")
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    backend: str
    failure: str
    seconds: float
    def __init__(self, backend: _Optional[str] = ..., failure: _Optional[str] = ..., seconds: _Optional[float] = ...) -> None: ...

class DoneEvent(_message.Message):
    __slots__ = ("tokens", "citations", "evidence_probability", "calibrated", "served_by", "truncated", "finish", "dropped_sentences", "dropped_markers", "session", "not_sure")
    class Finish(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FINISH_UNSPECIFIED: _ClassVar[DoneEvent.Finish]
        FINISH_COMPLETE: _ClassVar[DoneEvent.Finish]
        FINISH_LENGTH: _ClassVar[DoneEvent.Finish]
        FINISH_INTERRUPTED: _ClassVar[DoneEvent.Finish]
        FINISH_DEADLINE: _ClassVar[DoneEvent.Finish]
    FINISH_UNSPECIFIED: DoneEvent.Finish
    FINISH_COMPLETE: DoneEvent.Finish
    FINISH_LENGTH: DoneEvent.Finish
    FINISH_INTERRUPTED: DoneEvent.Finish
    FINISH_DEADLINE: DoneEvent.Finish
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    CITATIONS_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    SERVED_BY_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    DROPPED_SENTENCES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_MARKERS_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NOT_SURE_FIELD_NUMBER: _ClassVar[int]
    tokens: int
    citations: int
    evidence_probability: float
    calibrated: bool
    served_by: _types_pb2.ServedBy
    truncated: bool
    finish: DoneEvent.Finish
    dropped_sentences: int
    dropped_markers: int
    session: SessionState
    not_sure: bool
    def __init__(self, tokens: _Optional[int] = ..., citations: _Optional[int] = ..., evidence_probability: _Optional[float] = ..., calibrated: _Optional[bool] = ..., served_by: _Optional[_Union[_types_pb2.ServedBy, _Mapping]] = ..., truncated: _Optional[bool] = ..., finish: _Optional[_Union[DoneEvent.Finish, str]] = ..., dropped_sentences: _Optional[int] = ..., dropped_markers: _Optional[int] = ..., session: _Optional[_Union[SessionState, _Mapping]] = ..., not_sure: _Optional[bool] = ...) -> None: ...

class SessionState(_message.Message):
    __slots__ = ("session_id", "version", "saved", "reason")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SAVED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    version: int
    saved: bool
    reason: str
    def __init__(self, session_id: _Optional[str] = ..., version: _Optional[int] = ..., saved: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class RefusalEvent(_message.Message):
    __slots__ = ("reason", "topic_probability", "evidence_probability", "calibrated", "message", "session")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[RefusalEvent.Reason]
        REASON_OFF_TOPIC: _ClassVar[RefusalEvent.Reason]
        REASON_NO_EVIDENCE: _ClassVar[RefusalEvent.Reason]
        REASON_UNCLEAR: _ClassVar[RefusalEvent.Reason]
    REASON_UNSPECIFIED: RefusalEvent.Reason
    REASON_OFF_TOPIC: RefusalEvent.Reason
    REASON_NO_EVIDENCE: RefusalEvent.Reason
    REASON_UNCLEAR: RefusalEvent.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    TOPIC_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    reason: RefusalEvent.Reason
    topic_probability: float
    evidence_probability: float
    calibrated: bool
    message: str
    session: SessionState
    def __init__(self, reason: _Optional[_Union[RefusalEvent.Reason, str]] = ..., topic_probability: _Optional[float] = ..., evidence_probability: _Optional[float] = ..., calibrated: _Optional[bool] = ..., message: _Optional[str] = ..., session: _Optional[_Union[SessionState, _Mapping]] = ...) -> None: ...

class VerifyCitationRequest(_message.Message):
    __slots__ = ("collection", "citations", "min_watermark")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    CITATIONS_FIELD_NUMBER: _ClassVar[int]
    MIN_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    collection: str
    citations: _containers.RepeatedCompositeFieldContainer[Citation]
    min_watermark: bytes
    def __init__(self, collection: _Optional[str] = ..., citations: _Optional[_Iterable[_Union[Citation, _Mapping]]] = ..., min_watermark: _Optional[bytes] = ...) -> None: ...

class CitationCheck(_message.Message):
    __slots__ = ("verdict", "char_start", "char_end")
    class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        VERDICT_UNSPECIFIED: _ClassVar[CitationCheck.Verdict]
        VERDICT_VALID: _ClassVar[CitationCheck.Verdict]
        VERDICT_MOVED: _ClassVar[CitationCheck.Verdict]
        VERDICT_CHANGED: _ClassVar[CitationCheck.Verdict]
        VERDICT_GONE: _ClassVar[CitationCheck.Verdict]
    VERDICT_UNSPECIFIED: CitationCheck.Verdict
    VERDICT_VALID: CitationCheck.Verdict
    VERDICT_MOVED: CitationCheck.Verdict
    VERDICT_CHANGED: CitationCheck.Verdict
    VERDICT_GONE: CitationCheck.Verdict
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    CHAR_START_FIELD_NUMBER: _ClassVar[int]
    CHAR_END_FIELD_NUMBER: _ClassVar[int]
    verdict: CitationCheck.Verdict
    char_start: int
    char_end: int
    def __init__(self, verdict: _Optional[_Union[CitationCheck.Verdict, str]] = ..., char_start: _Optional[int] = ..., char_end: _Optional[int] = ...) -> None: ...

class VerifyCitationResponse(_message.Message):
    __slots__ = ("checks", "info")
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    checks: _containers.RepeatedCompositeFieldContainer[CitationCheck]
    info: _types_pb2.ReplyInfo
    def __init__(self, checks: _Optional[_Iterable[_Union[CitationCheck, _Mapping]]] = ..., info: _Optional[_Union[_types_pb2.ReplyInfo, _Mapping]] = ...) -> None: ...

class GetSessionRequest(_message.Message):
    __slots__ = ("collection", "session_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    session_id: str
    def __init__(self, collection: _Optional[str] = ..., session_id: _Optional[str] = ...) -> None: ...

class GetSessionResponse(_message.Message):
    __slots__ = ("session_id", "version", "turns", "expire_time")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TURNS_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    version: int
    turns: _containers.RepeatedCompositeFieldContainer[Turn]
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, session_id: _Optional[str] = ..., version: _Optional[int] = ..., turns: _Optional[_Iterable[_Union[Turn, _Mapping]]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class DeleteSessionRequest(_message.Message):
    __slots__ = ("collection", "session_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    session_id: str
    def __init__(self, collection: _Optional[str] = ..., session_id: _Optional[str] = ...) -> None: ...

class DeleteSessionResponse(_message.Message):
    __slots__ = ("deleted",)
    DELETED_FIELD_NUMBER: _ClassVar[int]
    deleted: bool
    def __init__(self, deleted: _Optional[bool] = ...) -> None: ...
