"""Load of `nearline bench swap`: an open loop of searches, lists and answers, each checked."""

from __future__ import annotations

import asyncio
import bisect
import itertools
import math
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads.swap_checks import ReplyChecker
from benchmarks.workloads.swap_dataset import COLLECTION, STAMPS, USERS, is_liked, item_id, user_id
from nearline import contract as c
from nearline.clients import GenerationClient, RetrievalClient
from nearline.errors import NearlineError, NotReady
from nearline_cli.evaluate.open_loop import run_open_loop

_K = 10
_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 10.0
_TEXTS = frozenset({c.PayloadField.TITLE, c.PayloadField.TEXT})
_VECTOR_SEARCH = c.SearchOptions(k=_K, mode=c.SearchMode.DENSE, payload=_TEXTS)
_TEXT_SEARCH = c.SearchOptions(k=_K, mode=c.SearchMode.HYBRID, payload=_TEXTS)
_LIST = c.RecommendOptions(n=_K, payload=_TEXTS)


class RequestKind(Enum):
    """Kind of request; the values are used in the names of the reported figures."""

    SEARCH = "search"
    TEXT_SEARCH = "text_search"
    RECOMMEND = "recommend"
    GENERATE = "generate"


class LoadPhase(Enum):
    """Phase in which a request was due.

    WARM_UP: Does not count. FLIPS: From the first promotion until one interval after the last one.
    SETTLE: While old snapshots are unloaded; latencies do not count.
    """

    WARM_UP = "warm_up"
    REST = "rest"
    FLIPS = "flips"
    SETTLE = "settle"


# Requests of each kind among twenty; half of the lists are for a user, a third for an item, the
# others for a new visitor.
MIX = {
    RequestKind.SEARCH: 11,
    RequestKind.TEXT_SEARCH: 2,
    RequestKind.RECOMMEND: 6,
    RequestKind.GENERATE: 1,
}
_AUDIENCES = ("user", "item", "user", "visitor", "user", "item")
_WHOLE = (c.Finish.COMPLETE, c.Finish.LENGTH)


@dataclass(slots=True)
class LoadResults:
    """Results seen by the callers after the warm-up.

    latencies_s: From the time a request was due to the end of its reply, by phase and kind. errors:
        By class. mixed: Replies that are not from a single snapshot. partial: Replies that lack
        shards. fallbacks: Degraded replies. epochs: Epochs by router. first: The first message of
        each class of error, and of a mixed reply.
    """

    requests: int = 0
    latencies_s: dict[tuple[LoadPhase, RequestKind], list[float]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    mixed: int = 0
    partial: int = 0
    fallbacks: int = 0
    answered: int = 0
    refused: int = 0
    epochs: dict[int, set[int]] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapLoad:
    """The load: questions and their vectors, sent to the routers in turn.

    generator: Generation service that uses the first router. documents: Documents per snapshot.
        rate: Requests per second. phases: Seconds of each phase, in order. seed: Seed of the order
        of kinds.
    """

    routers: Sequence[RetrievalClient]
    generator: GenerationClient
    checker: ReplyChecker
    questions: Sequence[str]
    vectors: NDArray[np.float32]
    documents: int
    rate: float
    phases: Sequence[tuple[LoadPhase, float]]
    seed: int


async def run_swap_load(load: SwapLoad, start: float, seen: LoadResults) -> None:
    """Sends requests in an open loop, see `run_open_loop`.

    Args:
        load: The load.
        start: Time of the event loop at which the first phase begins.
        seen: Collects the results.
    """
    callers = _Callers(load, seen)
    rng = np.random.default_rng(load.seed)
    block = [kind for kind, many in MIX.items() for _ in range(many)]
    kinds: list[RequestKind] = []
    ends = list(itertools.accumulate(seconds for _, seconds in load.phases))

    def send(number: int, due: float) -> Coroutine[None, None, None]:
        nonlocal kinds
        if not kinds:
            # Shuffled; otherwise each kind would always be sent to the same router.
            kinds = [block[at] for at in rng.permutation(len(block)).tolist()]
        phase, _ = load.phases[min(bisect.bisect(ends, number / load.rate), len(ends) - 1)]
        return callers.ask(kinds.pop(), number, phase, due)

    numbers = range(math.ceil(ends[-1] * load.rate))
    await run_open_loop(load.rate, numbers, send, start=start)


class _Callers:
    """Send requests and check replies; items come from the snapshot their router served last."""

    def __init__(self, load: SwapLoad, seen: LoadResults) -> None:
        self._load = load
        self._seen = seen
        self._lists = 0
        self._shown = [STAMPS[0]] * len(load.routers)
        self._liked = {
            stamp: [row for row in range(load.documents) if is_liked(stamp, row)]
            for stamp in STAMPS
        }

    async def ask(self, kind: RequestKind, number: int, phase: LoadPhase, due: float) -> None:
        seen = self._seen if phase is not LoadPhase.WARM_UP else LoadResults()
        seen.requests += 1
        try:
            match kind:
                case RequestKind.RECOMMEND:
                    check = await self._recommend(number, seen)
                case RequestKind.GENERATE:
                    check = await self._generate(number, seen)
                case RequestKind.SEARCH | RequestKind.TEXT_SEARCH:
                    check = await self._search(kind, number, seen)
        except NearlineError as error:
            name = type(error).__name__
            seen.errors[name] += 1
            seen.first.setdefault(name, f"{phase.value}, {kind.value}: {error.message}")
            return
        latency_s = asyncio.get_running_loop().time() - due
        seen.latencies_s.setdefault((phase, kind), []).append(latency_s)
        if problem := check():
            seen.mixed += 1
            seen.first.setdefault("mixed", f"{phase.value}, {kind.value}: {problem}")

    async def _search(self, kind: RequestKind, number: int, seen: LoadResults) -> Callable[[], str]:
        load, at = self._load, number % len(self._load.questions)
        query, options = c.Query(vector=load.vectors[at]), _VECTOR_SEARCH
        if kind is RequestKind.TEXT_SEARCH:
            query, options = c.Query(text=load.questions[at]), _TEXT_SEARCH
        router = number % len(load.routers)
        reply = await load.routers[router].search(
            query, options, collection=COLLECTION, timeout_s=_TIMEOUT_S
        )
        self._read(reply.info, router, seen)
        seen.fallbacks += reply.info.served_by.source is c.Source.FALLBACK
        return lambda: load.checker.search(reply)

    async def _recommend(self, number: int, seen: LoadResults) -> Callable[[], str]:
        load, audience = self._load, c.Audience()
        router = number % len(load.routers)
        audience_kind = _AUDIENCES[self._lists % len(_AUDIENCES)]
        self._lists += 1
        if audience_kind == "user":
            audience = c.Audience(user_id=user_id(number % USERS))
        elif audience_kind == "item":
            stamp = self._shown[router]
            rows = self._liked[stamp]
            audience = c.Audience(item_ids=(item_id(stamp, rows[number % len(rows)]),))
        reply = await load.routers[router].recommend(
            audience, _LIST, collection=COLLECTION, timeout_s=_TIMEOUT_S
        )
        self._read(reply.info, router, seen)
        # An item of the previous snapshot no longer exists; popular items are returned instead.
        if not reply.ignored_ids:
            seen.fallbacks += reply.info.served_by.source is c.Source.FALLBACK
        return lambda: load.checker.recommendations(reply, audience)

    async def _generate(self, number: int, seen: LoadResults) -> Callable[[], str]:
        load = self._load
        question = c.Question(text=load.questions[number % len(load.questions)])
        events = [
            event
            async for event in load.generator.generate(
                question, collection=COLLECTION, timeout_s=_ANSWER_TIMEOUT_S
            )
        ]
        match events[-1] if events else None:
            case c.Refusal():
                seen.refused += 1
            case c.Done(finish=finish, served_by=served_by) if finish in _WHOLE:
                seen.answered += 1
                seen.fallbacks += served_by.source is c.Source.FALLBACK
            case last:
                raise NotReady(
                    f"an answer was incomplete: the last of {len(events)} events is {last}"
                )
        assert isinstance(events[0], c.Evidence), "the first event of an answer is its evidence"
        seen.partial += bool(events[0].info.coverage.missing_shards)
        return lambda: load.checker.answer(events)

    def _read(self, info: c.ReplyInfo, router: int, seen: LoadResults) -> None:
        seen.epochs.setdefault(router, set()).add(info.epoch)
        seen.partial += bool(info.coverage.missing_shards)
        self._shown[router] = self._load.checker.stamps.get(info.snapshot_id, STAMPS[0])
