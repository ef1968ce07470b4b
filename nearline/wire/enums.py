"""Tables between contract enums and protobuf numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TypeVar

from nearline import contract as c
from nearline.errors import InvalidRequest
from nearline.v1 import embedding_pb2, generation_pb2, retrieval_pb2, types_pb2

_E = TypeVar("_E", bound=Enum)

ROLES = {
    c.TextRole.QUERY: embedding_pb2.TEXT_ROLE_QUERY,
    c.TextRole.DOCUMENT: embedding_pb2.TEXT_ROLE_DOCUMENT,
}
LANES = {
    c.Lane.INTERACTIVE: embedding_pb2.LANE_INTERACTIVE,
    c.Lane.BULK: embedding_pb2.LANE_BULK,
}
MODES = {
    c.SearchMode.DENSE: retrieval_pb2.SEARCH_MODE_DENSE,
    c.SearchMode.LEXICAL: retrieval_pb2.SEARCH_MODE_LEXICAL,
    c.SearchMode.HYBRID: retrieval_pb2.SEARCH_MODE_HYBRID,
}
LEVELS = {
    c.HitLevel.DOCUMENT: retrieval_pb2.HIT_LEVEL_DOCUMENT,
    c.HitLevel.CHUNK: retrieval_pb2.HIT_LEVEL_CHUNK,
}
PAYLOAD = {
    c.PayloadField.TITLE: retrieval_pb2.PAYLOAD_FIELD_TITLE,
    c.PayloadField.TEXT: retrieval_pb2.PAYLOAD_FIELD_TEXT,
    c.PayloadField.ATTRIBUTES: retrieval_pb2.PAYLOAD_FIELD_ATTRIBUTES,
    c.PayloadField.VECTOR: retrieval_pb2.PAYLOAD_FIELD_VECTOR,
}
IGNORED = {
    c.IgnoredReason.NOT_FOUND: retrieval_pb2.IgnoredId.REASON_NOT_FOUND,
    c.IgnoredReason.SHARD_UNAVAILABLE: retrieval_pb2.IgnoredId.REASON_SHARD_UNAVAILABLE,
}
SOURCES = {
    c.Source.LIVE: types_pb2.ServedBy.SOURCE_LIVE,
    c.Source.CACHE: types_pb2.ServedBy.SOURCE_CACHE,
    c.Source.FALLBACK: types_pb2.ServedBy.SOURCE_FALLBACK,
}
ARMS = {
    c.Arm.CURRENT: types_pb2.ARM_CURRENT,
    c.Arm.CANARY: types_pb2.ARM_CANARY,
}
OUTCOMES = {
    c.WriteOutcome.APPLIED: retrieval_pb2.WriteResult.OUTCOME_APPLIED,
    c.WriteOutcome.REPLACED: retrieval_pb2.WriteResult.OUTCOME_REPLACED,
    c.WriteOutcome.DELETED: retrieval_pb2.WriteResult.OUTCOME_DELETED,
    c.WriteOutcome.ABSENT: retrieval_pb2.WriteResult.OUTCOME_ABSENT,
    c.WriteOutcome.REJECTED: retrieval_pb2.WriteResult.OUTCOME_REJECTED,
    c.WriteOutcome.UNCHANGED: retrieval_pb2.WriteResult.OUTCOME_UNCHANGED,
    c.WriteOutcome.SUPERSEDED: retrieval_pb2.WriteResult.OUTCOME_SUPERSEDED,
}
REFUSALS = {
    c.RefusalReason.OFF_TOPIC: generation_pb2.RefusalEvent.REASON_OFF_TOPIC,
    c.RefusalReason.NO_EVIDENCE: generation_pb2.RefusalEvent.REASON_NO_EVIDENCE,
}
FINISHES = {
    c.Finish.COMPLETE: generation_pb2.DoneEvent.FINISH_COMPLETE,
    c.Finish.LENGTH: generation_pb2.DoneEvent.FINISH_LENGTH,
    c.Finish.INTERRUPTED: generation_pb2.DoneEvent.FINISH_INTERRUPTED,
    c.Finish.DEADLINE: generation_pb2.DoneEvent.FINISH_DEADLINE,
}
VERDICTS = {
    c.Verdict.VALID: generation_pb2.CitationCheck.VERDICT_VALID,
    c.Verdict.MOVED: generation_pb2.CitationCheck.VERDICT_MOVED,
    c.Verdict.CHANGED: generation_pb2.CitationCheck.VERDICT_CHANGED,
    c.Verdict.GONE: generation_pb2.CitationCheck.VERDICT_GONE,
}
CAUSES = {
    c.Cause.LISTED: retrieval_pb2.WhyNot.CAUSE_LISTED,
    c.Cause.NO_SUCH_ITEM: retrieval_pb2.WhyNot.CAUSE_NO_SUCH_ITEM,
    c.Cause.OUTRANKED: retrieval_pb2.WhyNot.CAUSE_OUTRANKED,
    c.Cause.SEEN: retrieval_pb2.WhyNot.CAUSE_SEEN,
    c.Cause.EXCLUDED: retrieval_pb2.WhyNot.CAUSE_EXCLUDED,
    c.Cause.BLOCKED: retrieval_pb2.WhyNot.CAUSE_BLOCKED,
    c.Cause.FILTERED: retrieval_pb2.WhyNot.CAUSE_FILTERED,
    c.Cause.QUOTA: retrieval_pb2.WhyNot.CAUSE_QUOTA,
    c.Cause.DIVERSITY: retrieval_pb2.WhyNot.CAUSE_DIVERSITY,
}
STRATEGIES = {
    c.PlanStrategy.EXACT: retrieval_pb2.FilterPlan.STRATEGY_EXACT,
    c.PlanStrategy.BITMAP: retrieval_pb2.FilterPlan.STRATEGY_BITMAP,
    c.PlanStrategy.EXACT_AFTER_SHORT: retrieval_pb2.FilterPlan.STRATEGY_EXACT_AFTER_SHORT,
    c.PlanStrategy.EMPTY: retrieval_pb2.FilterPlan.STRATEGY_EMPTY,
    c.PlanStrategy.BACKEND: retrieval_pb2.FilterPlan.STRATEGY_BACKEND,
}


def inverse(table: Mapping[_E, int]) -> dict[int, _E]:
    """Returns the inverse table: numbers to members."""
    return {number: member for member, number in table.items()}


ROLE_OF = inverse(ROLES) | {0: c.TextRole.DOCUMENT}
LANE_OF = inverse(LANES) | {0: c.Lane.INTERACTIVE}
MODE_OF = inverse(MODES)
LEVEL_OF = inverse(LEVELS) | {0: c.HitLevel.DOCUMENT}
PAYLOAD_OF = inverse(PAYLOAD)
IGNORED_OF = inverse(IGNORED)
SOURCE_OF = inverse(SOURCES)
ARM_OF = inverse(ARMS)
OUTCOME_OF = inverse(OUTCOMES)
STRATEGY_OF = inverse(STRATEGIES)
CAUSE_OF = inverse(CAUSES)
REFUSAL_OF = inverse(REFUSALS)
FINISH_OF = inverse(FINISHES) | {0: c.Finish.COMPLETE}
VERDICT_OF = inverse(VERDICTS)


def lookup(table: Mapping[int, _E], number: int, field: str) -> _E:
    """Returns the member for a number. Raises InvalidRequest with the known numbers."""
    member = table.get(number)
    if member is None:
        known = ", ".join(f"{n} ({m.value})" for n, m in sorted(table.items()) if n)
        raise InvalidRequest(f"{field} {number} is not known; use one of {known}", field=field)
    return member


def role_from_proto(number: int) -> c.TextRole:
    """Returns the role; unspecified is document."""
    return lookup(ROLE_OF, number, "role")


def lane_from_proto(number: int) -> c.Lane:
    """Returns the lane; unspecified is interactive."""
    return lookup(LANE_OF, number, "lane")


def payload_from_proto(numbers: Iterable[int]) -> frozenset[c.PayloadField]:
    """Returns the set of payload fields."""
    return frozenset(lookup(PAYLOAD_OF, number, "payload") for number in numbers)


def payload_to_proto(fields: Iterable[c.PayloadField]) -> list[retrieval_pb2.PayloadField]:
    """Returns the payload fields by number, ascending."""
    return sorted(PAYLOAD[field] for field in fields)
