"""The context of one request: its deadline, its watermark, and the state of the shards it asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from nearline.contract import CPU_RUNG, LEXICAL_RUNG, SearchCost, ServedBy, Source
from nearline.errors import NearlineError, SnapshotMismatch
from nearline.filters import Filter, conditions
from retrieval.index.filtering.validation import unknown_attribute_error
from retrieval.protocols.shard import ShardHits, add_costs
from retrieval.protocols.watermark import (
    AppliedState,
    Watermark,
    decode_watermark,
    merge_watermarks,
)
from retrieval.search.collection import ServedCollection

# Returns a filter for the items that the caller of the running request may see; None: all.
Visible: TypeAlias = Callable[[], Filter | None]
_LIVE = ServedBy()
_WITHOUT_MODEL = ServedBy(reason="by words alone: the collection has no text model; send vectors")
# Part of the caller's time that is reserved for merging and sending the replies that have arrived.
_RESERVE_RATIO = 0.1
_RESERVE_S = 0.02
STALE = "stale"
# The server is overloaded, and optional work was left out.
REDUCED = "reduced"
# Share of the time of a search that embedding may take, if words alone can answer, too.
_EMBED_SHARE = 0.5


@dataclass(slots=True)
class RequestContext:
    """Limits of a request, and a record of the shards it asked, in one round of calls or several.

    If a request asks a shard several times, the oldest state that it saw counts.

    deadline: Loop time to stop waiting at; None waits without limit. embed_until: Loop time to stop
    waiting for the embedder at, if words alone can answer; None: the deadline. min_watermark: State
    that answers must include; None accepts any. visible: Matches the items that the caller may see;
    None: all. No other item is found by id, listed or counted. failures: Errors of failed shards.
    applied: Progress of live changes in the other shards; empty if no change log is followed.
    reduced: What the answer lacks because the server is overloaded; empty if nothing. stale_list:
    Why a cached list in the answer may lack changes; empty if it does not. words_only: Why texts
    were searched by their words alone; empty if they were not. no_model: Whether that is so because
    the collection has no model, and the request named no mode. fallbacks: Why the CPU answered in
    place of GPUs, each reason once. cost: That of exact searches; None without any.
    """

    deadline: float | None = None
    min_watermark: Watermark | None = None
    visible: Filter | None = None
    failures: dict[int, NearlineError] = field(default_factory=dict)
    applied: dict[int, AppliedState] = field(default_factory=dict)
    reduced: str = ""
    stale_list: str = ""
    words_only: str = ""
    no_model: bool = False
    embed_until: float | None = None
    fallbacks: dict[str, None] = field(default_factory=dict)
    cost: SearchCost | None = None

    def record_hits(self, shard: int, results: Sequence[ShardHits]) -> None:
        """Records how a shard computed the hits of its queries, at least one."""
        if results[0].applied is not None:
            self.record_applied(shard, [hits.applied for hits in results])
        for reason in {hits.fallback for hits in results}:
            self.record_fallback(f"shard {shard}", reason)
        for cost in [hits.cost for hits in results if hits.cost is not None]:
            self.cost = cost if self.cost is None else add_costs(self.cost, cost)

    def record_fallback(self, part: str, reason: str) -> None:
        """Records why the CPU answered in place of a GPU of a part; empty if it did not."""
        if reason:
            self.fallbacks[f"{part}: {reason}"] = None

    def record_applied(self, shard: int, states: Iterable[AppliedState | None]) -> None:
        """Records the progress of live changes in answers of a shard."""
        state = oldest_state((self.applied.get(shard), *states))
        if state is not None:
            self.applied[shard] = state

    @property
    def watermark(self) -> bytes:
        """Progress of live changes in the whole answer, as callers see it."""
        if not self.applied:
            return b""
        return merge_watermarks(tuple(one.watermark for one in self.applied.values())).encode()

    def share_of_time(self, share: float) -> float | None:
        """Returns the loop time at which a share of the time left is over, 0..1.

        Returns: None without a deadline.
        """
        if self.deadline is None:
            return None
        now = asyncio.get_running_loop().time()
        return now + share * (self.deadline - now)

    @property
    def complete(self) -> bool:
        """Whether every shard answered, is up to date, and nothing was left out."""
        return not self.failures and self.served_by.rung in ("", CPU_RUNG)

    @property
    def stale(self) -> str:
        """Why a shard or a cached list may be behind the log; empty if none is."""
        reasons = [one.stale for one in self.applied.values()]
        return "; ".join(dict.fromkeys(one for one in (*reasons, self.stale_list) if one))

    @property
    def served_by(self) -> ServedBy:
        """Source of the answer: a fallback if a shard may be behind the log, or parts are left out.

        An answer by words alone counts for more than a stale one, that for more than a reduced one,
        and that for more than a slow one.
        """
        stale = self.stale
        reasons: dict[str, None] = {stale: None} if stale else {}
        rung = STALE if stale else REDUCED if self.reduced else CPU_RUNG
        if self.words_only:
            rung = LEXICAL_RUNG
            reasons[self.words_only] = None
        if self.reduced:
            reasons[self.reduced] = None
        reasons |= self.fallbacks
        if not reasons:
            return _WITHOUT_MODEL if self.no_model else _LIVE
        return ServedBy(source=Source.FALLBACK, rung=rung, reason="; ".join(reasons))


def oldest_state(states: Iterable[AppliedState | None]) -> AppliedState | None:
    """Returns the state that all have reached; if they are of several logs, the first counts."""
    oldest: AppliedState | None = None
    for state in states:
        if state is not None and state is not oldest:
            oldest = state if oldest is None else _older(oldest, state)
    return oldest


def _older(first: AppliedState, second: AppliedState) -> AppliedState:
    mark, other = first.watermark, second.watermark
    if mark is not other and mark.log_id == other.log_id and mark != other:
        mark = mark.limited(other)
    return AppliedState(mark, first.stale or second.stale)


def context_factory(
    timeout_s: float | None,
    min_watermark: bytes,
    visible: Filter | None = None,
    field: str = "min_watermark",
) -> Callable[[ServedCollection], RequestContext]:
    """Returns a function that starts a context; each retry of the whole request starts a new one.

    The function raises SnapshotMismatch if the collection does not say who may see its items.

    Raises: InvalidRequest: not a valid watermark.
    """
    watermark = decode_watermark(min_watermark, field) if min_watermark else None
    deadline = embed_until = None
    if timeout_s is not None:
        reserve_s = min(_RESERVE_S, timeout_s * _RESERVE_RATIO)
        now = asyncio.get_running_loop().time()
        deadline, embed_until = now + timeout_s - reserve_s, now + timeout_s * _EMBED_SHARE

    def start(served: ServedCollection) -> RequestContext:
        if visible is not None:
            _check_readers(served, visible)
        return RequestContext(deadline, watermark, visible, embed_until=embed_until)

    return start


def _check_readers(served: ServedCollection, visible: Filter) -> None:
    """Checks that items can be shown by their readers; a shard would blame the filter."""
    for condition in conditions(visible):
        kind = served.attribute_kinds.get(condition.field)
        if kind != "string":
            problem = "it has no such attribute" if kind is None else f"it is of kind {kind}"
            raise SnapshotMismatch(
                f"collection {served.name!r} shows no item to tenants: attribute "
                f"{condition.field!r} says who may read one (readers_attribute), and in snapshot "
                f"{served.snapshot_id} {problem}; build it from items that name their readers, "
                f"with --attribute {condition.field}:string"
            )


def check_names(
    served: ServedCollection,
    visible: Filter | None,
    filter: Filter | None,
    others: Iterable[tuple[str, str]] = (),
) -> None:
    """Checks that attributes exist; the error names those that the caller may know.

    A caller who may see some items only may not know those that only items brought.

    Args:
        visible: Matches the items that the caller may see; None: all. Then shards check the filter.
        filter: Of the request. Optional.
        others: Further attributes, each with the field of the request that names it.
    Raises: InvalidRequest: one does not exist.
    """
    named = [*others]
    if visible is not None and filter is not None:
        named += [(one.field, "options.filter") for one in conditions(filter)]
    for name, path in named:
        if name not in served.attribute_kinds:
            known = set(served.attribute_kinds)
            if visible is not None:
                known = served.declared | {one.field for one in conditions(visible)}
            raise unknown_attribute_error(name, [*known], path)
