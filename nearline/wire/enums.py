"""Tables between contract enums and protobuf numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar

from nearline import contract as c
from nearline.errors import InvalidRequest
from nearline.v1 import embedding_pb2, generation_pb2, retrieval_pb2, types_pb2
from nearline.wire.limits import NUMBERS, bounded

_E = TypeVar("_E", bound=Enum)
_N = TypeVar("_N", bound=int)


def numbers_of(members: type[_E], numbers: type[_N]) -> dict[_E, _N]:
    """Returns the numbers of the members of an enum, by the names that the protobuf enum has.

    Each name has the prefix of UNSPECIFIED, which is 0: SEARCH_MODE_DENSE for SearchMode.DENSE.
    """
    proto: Any = numbers
    prefix = proto.Name(0).removesuffix("UNSPECIFIED")
    return {one: proto.Value(prefix + one.name) for one in members}


ROLES = numbers_of(c.TextRole, embedding_pb2.TextRole)
LANES = numbers_of(c.Lane, embedding_pb2.Lane)
MODES = numbers_of(c.SearchMode, retrieval_pb2.SearchMode)
LEVELS = numbers_of(c.HitLevel, retrieval_pb2.HitLevel)
PAYLOAD = numbers_of(c.PayloadField, retrieval_pb2.PayloadField)
IGNORED = numbers_of(c.IgnoredReason, retrieval_pb2.IgnoredId.Reason)
SOURCES = numbers_of(c.Source, types_pb2.ServedBy.Source)
ARMS = numbers_of(c.Arm, types_pb2.Arm)
OUTCOMES = numbers_of(c.WriteOutcome, retrieval_pb2.WriteResult.Outcome)
REFUSALS = numbers_of(c.RefusalReason, generation_pb2.RefusalEvent.Reason)
FINISHES = numbers_of(c.Finish, generation_pb2.DoneEvent.Finish)
VERDICTS = numbers_of(c.Verdict, generation_pb2.CitationCheck.Verdict)
CAUSES = numbers_of(c.Cause, retrieval_pb2.WhyNot.Cause)
DECAY_SHAPES = numbers_of(c.DecayShape, retrieval_pb2.BoostDecay.Shape)
STRATEGIES = numbers_of(c.PlanStrategy, retrieval_pb2.FilterPlan.Strategy)


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
DECAY_SHAPE_OF = inverse(DECAY_SHAPES) | {0: c.DecayShape.GAUSS}
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


def payload_from_proto(numbers: Sequence[int]) -> frozenset[c.PayloadField]:
    """Returns the set of payload fields."""
    few = bounded(numbers, "payload", NUMBERS)
    return frozenset(lookup(PAYLOAD_OF, number, "payload") for number in few)


def payload_to_proto(fields: Iterable[c.PayloadField]) -> list[retrieval_pb2.PayloadField]:
    """Returns the payload fields by number, ascending."""
    return sorted(PAYLOAD[field] for field in fields)
