"""One request on its way through the shards of a collection, in one round of calls or several."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from nearline.contract import ServedBy, Source
from nearline.errors import NearlineError
from retrieval.protocols.shard import AppliedState
from retrieval.protocols.watermark import Watermark, decode_watermark, merge_watermarks

_LIVE = ServedBy()
# Kept back of the caller's time to merge and answer with what has arrived.
_RESERVE_RATIO = 0.1
_RESERVE_S = 0.02
STALE = "stale"


@dataclass(slots=True)
class RequestContext:
    """Until when shards are waited for, how new a state is wanted, and what they said on the way.

    A request that asks a shard several times is told of the oldest state that it saw.

    deadline: Loop time to stop waiting at; None: no limit. least: State that answers must have;
    None: any. failures: Shards that did not answer. applied: How far live changes were in the
    answers of the others; empty where no change log is followed.
    """

    deadline: float | None = None
    least: Watermark | None = None
    failures: dict[int, NearlineError] = field(default_factory=dict)
    applied: dict[int, AppliedState] = field(default_factory=dict)

    def heard(self, shard: int, applied: Iterable[AppliedState | None]) -> None:
        """Takes in how far live changes were in answers of a shard."""
        state = oldest_state((self.applied.get(shard), *applied))
        if state is not None:
            self.applied[shard] = state

    @property
    def watermark(self) -> bytes:
        """How far live changes are in the whole answer, as users see it."""
        if not self.applied:
            return b""
        return merge_watermarks(tuple(one.watermark for one in self.applied.values())).encode()

    @property
    def served_by(self) -> ServedBy:
        """Where the answer came from: a fallback where a shard may be behind the log."""
        reasons = dict.fromkeys(one.stale for one in self.applied.values() if one.stale)
        if not reasons:
            return _LIVE
        return ServedBy(source=Source.FALLBACK, rung=STALE, reason="; ".join(reasons))


def oldest_state(states: Iterable[AppliedState | None]) -> AppliedState | None:
    """Returns the state that all have reached; of several logs the first counts."""
    least: AppliedState | None = None
    for one in states:
        if one is not None and one is not least:
            least = one if least is None else _older(least, one)
    return least


def _older(one: AppliedState, other: AppliedState) -> AppliedState:
    mark, beside = one.watermark, other.watermark
    if mark is not beside and mark.log_id == beside.log_id and mark != beside:
        mark = mark.limited(beside)
    return AppliedState(mark, one.stale or other.stale)


def context_factory(
    timeout_s: float | None, min_watermark: bytes, place: str = "min_watermark"
) -> Callable[[], RequestContext]:
    """Returns what begins an inquiry; a request that is asked whole again begins another one.

    Raises: InvalidRequest: no watermark of ours.
    """
    least = decode_watermark(min_watermark, place)
    if timeout_s is None:
        return partial(RequestContext, None, least)
    reserve_s = min(_RESERVE_S, timeout_s * _RESERVE_RATIO)
    return partial(RequestContext, asyncio.get_running_loop().time() + timeout_s - reserve_s, least)
