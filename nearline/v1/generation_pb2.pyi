from nearline.v1 import retrieval_pb2 as _retrieval_pb2
from nearline.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RefusalPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFUSAL_POLICY_UNSPECIFIED: _ClassVar[RefusalPolicy]
    REFUSAL_POLICY_REFUSE: _ClassVar[RefusalPolicy]
    REFUSAL_POLICY_ANSWER: _ClassVar[RefusalPolicy]
REFUSAL_POLICY_UNSPECIFIED: RefusalPolicy
REFUSAL_POLICY_REFUSE: RefusalPolicy
REFUSAL_POLICY_ANSWER: RefusalPolicy

class GenerateRequest(_message.Message):
    __slots__ = ("collection", "question", "filter", "mode", "max_tokens", "documents", "refusal_policy")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_POLICY_FIELD_NUMBER: _ClassVar[int]
    collection: str
    question: str
    filter: _types_pb2.Filter
    mode: _retrieval_pb2.SearchMode
    max_tokens: int
    documents: int
    refusal_policy: RefusalPolicy
    def __init__(self, collection: _Optional[str] = ..., question: _Optional[str] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., mode: _Optional[_Union[_retrieval_pb2.SearchMode, str]] = ..., max_tokens: _Optional[int] = ..., documents: _Optional[int] = ..., refusal_policy: _Optional[_Union[RefusalPolicy, str]] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("evidence", "delta", "citation", "done", "refusal")
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    CITATION_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    evidence: EvidenceEvent
    delta: DeltaEvent
    citation: Citation
    done: DoneEvent
    refusal: RefusalEvent
    def __init__(self, evidence: _Optional[_Union[EvidenceEvent, _Mapping]] = ..., delta: _Optional[_Union[DeltaEvent, _Mapping]] = ..., citation: _Optional[_Union[Citation, _Mapping]] = ..., done: _Optional[_Union[DoneEvent, _Mapping]] = ..., refusal: _Optional[_Union[RefusalEvent, _Mapping]] = ...) -> None: ...

class EvidenceEvent(_message.Message):
    __slots__ = ("documents", "info")
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    documents: _containers.RepeatedCompositeFieldContainer[_retrieval_pb2.Hit]
    info: _types_pb2.ReplyInfo
    def __init__(self, documents: _Optional[_Iterable[_Union[_retrieval_pb2.Hit, _Mapping]]] = ..., info: _Optional[_Union[_types_pb2.ReplyInfo, _Mapping]] = ...) -> None: ...

class DeltaEvent(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class Citation(_message.Message):
    __slots__ = ("number", "document_id", "chunk", "char_start", "char_end", "text_hash", "snapshot_id", "title")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    CHAR_START_FIELD_NUMBER: _ClassVar[int]
    CHAR_END_FIELD_NUMBER: _ClassVar[int]
    TEXT_HASH_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    number: int
    document_id: str
    chunk: int
    char_start: int
    char_end: int
    text_hash: str
    snapshot_id: str
    title: str
    def __init__(self, number: _Optional[int] = ..., document_id: _Optional[str] = ..., chunk: _Optional[int] = ..., char_start: _Optional[int] = ..., char_end: _Optional[int] = ..., text_hash: _Optional[str] = ..., snapshot_id: _Optional[str] = ..., title: _Optional[str] = ...) -> None: ...

class DoneEvent(_message.Message):
    __slots__ = ("tokens", "citations", "evidence_probability", "calibrated", "served_by", "truncated")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    CITATIONS_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    SERVED_BY_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    tokens: int
    citations: int
    evidence_probability: float
    calibrated: bool
    served_by: _types_pb2.ServedBy
    truncated: bool
    def __init__(self, tokens: _Optional[int] = ..., citations: _Optional[int] = ..., evidence_probability: _Optional[float] = ..., calibrated: _Optional[bool] = ..., served_by: _Optional[_Union[_types_pb2.ServedBy, _Mapping]] = ..., truncated: _Optional[bool] = ...) -> None: ...

class RefusalEvent(_message.Message):
    __slots__ = ("reason", "topic_probability", "evidence_probability", "calibrated", "message")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[RefusalEvent.Reason]
        REASON_OFF_TOPIC: _ClassVar[RefusalEvent.Reason]
        REASON_NO_EVIDENCE: _ClassVar[RefusalEvent.Reason]
    REASON_UNSPECIFIED: RefusalEvent.Reason
    REASON_OFF_TOPIC: RefusalEvent.Reason
    REASON_NO_EVIDENCE: RefusalEvent.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    TOPIC_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: RefusalEvent.Reason
    topic_probability: float
    evidence_probability: float
    calibrated: bool
    message: str
    def __init__(self, reason: _Optional[_Union[RefusalEvent.Reason, str]] = ..., topic_probability: _Optional[float] = ..., evidence_probability: _Optional[float] = ..., calibrated: _Optional[bool] = ..., message: _Optional[str] = ...) -> None: ...

class VerifyCitationRequest(_message.Message):
    __slots__ = ("collection", "citations")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    CITATIONS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    citations: _containers.RepeatedCompositeFieldContainer[Citation]
    def __init__(self, collection: _Optional[str] = ..., citations: _Optional[_Iterable[_Union[Citation, _Mapping]]] = ...) -> None: ...

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
