"""Replays requests on two snapshots alternately, and compares answers and latencies.

Preparing a request is separate from running it, so that only the request is timed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import NamedTuple, TypeAlias

import numpy as np

from index_builder.releases.probes import Probe, Probes
from index_builder.releases.snapshot_loader import LoadedSnapshot
from nearline import contract as c
from nearline.errors import InvalidRequest, NearlineError
from retrieval.protocols.shard import ShardQueries
from retrieval.search import executor
from retrieval.search.queries import (
    QueryBatch,
    align_to_metric,
    check_options,
    parsed_text,
    prepare_queries,
)
from retrieval.search.request_context import RequestContext


class Answer(NamedTuple):
    """ids: Best first. seconds: Duration."""

    ids: list[str]
    seconds: float


PreparedRequest: TypeAlias = Callable[[], Awaitable[Answer]]


class UnsupportedRequest(Exception):
    """A request that a snapshot cannot run through no fault of its own; the message says why."""


async def prepare_request(snapshot: LoadedSnapshot, probe: Probe) -> PreparedRequest:
    """Prepares a request: embeds its text, or looks up the vectors of its items.

    Raises: UnsupportedRequest: its vector is from a different model, or its text cannot be
        embedded.
        NearlineError: the snapshot refuses it.
    """
    if probe.query is None:
        return _prepare_list(snapshot, probe)
    served = snapshot.served
    options = probe.options
    if probe.kind != "text":
        # A text of which only the vector was recorded is sent as a vector.
        options = replace(options, mode=None)
    check_options(served, options)
    batch = await _query_batch(snapshot, probe, options)

    async def search() -> Answer:
        start = time.perf_counter()
        outcome = await executor.search(served, batch, options, RequestContext())
        seconds = time.perf_counter() - start
        return Answer([hit.id for hit in outcome.lists[0]], seconds)

    return search


def _prepare_list(snapshot: LoadedSnapshot, probe: Probe) -> PreparedRequest:
    audience = probe.audience
    assert audience is not None

    async def recommend() -> Answer:
        start = time.perf_counter()
        reply = await snapshot.recommender.recommend(
            audience, probe.list_options, collection=snapshot.served.name
        )
        seconds = time.perf_counter() - start
        return Answer([one.hit.id for one in reply.recommendations], seconds)

    return recommend


async def _query_batch(
    snapshot: LoadedSnapshot, probe: Probe, options: c.SearchOptions
) -> QueryBatch:
    served, query = snapshot.served, probe.query
    assert query is not None
    same_model = probe.fingerprint == served.fingerprint
    if query.vector is not None and not same_model:
        raise UnsupportedRequest("its vector is from a different model")
    embeds = (
        query.text is not None and options.mode is not c.SearchMode.LEXICAL and served.has_model
    )
    if embeds and probe.vector is not None and same_model:
        hybrid = options.mode is not c.SearchMode.DENSE and (
            served.words_by_default or options.mode is c.SearchMode.HYBRID
        )
        matrix = align_to_metric(served, probe.vector[None])
        parsed = parsed_text(served, query, "query", options)
        texts = (parsed.words,) if hybrid else ()
        mode = c.SearchMode.HYBRID if hybrid else c.SearchMode.DENSE
        return QueryBatch(mode, [0], ShardQueries(matrix, texts), condition=parsed.condition)
    try:
        prepared = await prepare_queries(
            served, snapshot.embedders, [query], ["query"], options, RequestContext()
        )
    except NearlineError as error:
        if not embeds or isinstance(error, InvalidRequest):
            raise
        raise UnsupportedRequest(
            "no embedding service of its model was given: --embedding"
        ) from error
    return prepared.batches[0]


K = 10
# How often each request is timed.
_PASSES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPair:
    """One request and the answers of both snapshots.

    first, second: The answers, with the median of the times.
    overlap: Share of the first k ids in common, 0..1.
    refused: Why the second snapshot refuses the request; empty if it answers.
    """

    probe: Probe
    first: Answer
    second: Answer
    overlap: float
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The results of all requests.

    source: Where they come from, `probes.RECORDED` or `probes.GOLDEN`.
    left_out: Number of requests that could not be sent, by reason.
    """

    first: LoadedSnapshot
    second: LoadedSnapshot
    pairs: Sequence[ReplayPair]
    source: str
    left_out: Mapping[str, int] = field(default_factory=dict)
    k: int = K

    @property
    def answered(self) -> list[ReplayPair]:
        """The requests that both snapshots answered."""
        return [one for one in self.pairs if not one.refused]


async def replay(
    first: LoadedSnapshot, second: LoadedSnapshot, probes: Probes, *, k: int = K
) -> Replay:
    """Sends the same requests to both snapshots.

    Each request goes to both snapshots in succession, and they take turns in being first: once to
    warm up, then several times to average out chance. The median time counts. Times of searches
    exclude embedding.

    Args:
        k: Number of ids to compare.
    """
    left_out = Counter(probes.unreadable)
    prepared: list[tuple[Probe, PreparedRequest, PreparedRequest]] = []
    pairs: list[ReplayPair] = []
    for probe in probes.probes:
        try:
            send_first = await prepare_request(first, probe)
            answer = await send_first()
        except UnsupportedRequest as reason:
            left_out[str(reason)] += 1
            continue
        except NearlineError as error:
            left_out[f"{first.id} refuses it: {type(error).__name__}"] += 1
            continue
        try:
            send_second = await prepare_request(second, probe)
            await send_second()
        except UnsupportedRequest as reason:
            left_out[str(reason)] += 1
            continue
        except NearlineError as error:
            # A router would refuse this request after the flip.
            nothing = Answer([], 0.0)
            pairs.append(
                ReplayPair(
                    probe=probe, first=answer, second=nothing, overlap=0.0, refused=error.message
                )
            )
            continue
        prepared.append((probe, send_first, send_second))
    times: list[tuple[list[float], list[float]]] = [([], []) for _ in prepared]
    answers: list[tuple[Answer, Answer]] = []
    for number in range(_PASSES):
        answers = []
        for at, (_, send_first, send_second) in enumerate(prepared):
            if (at + number) % 2:
                theirs, ours = await send_second(), await send_first()
            else:
                ours, theirs = await send_first(), await send_second()
            times[at][0].append(ours.seconds)
            times[at][1].append(theirs.seconds)
            answers.append((ours, theirs))
    for (probe, _, _), (ours, theirs), (mine, other_s) in zip(
        prepared, answers, times, strict=True
    ):
        pairs.append(
            ReplayPair(
                probe=probe,
                first=ours._replace(seconds=median(mine)),
                second=theirs._replace(seconds=median(other_s)),
                overlap=overlap(ours.ids[:k], theirs.ids[:k]),
            )
        )
    return Replay(
        first=first, second=second, pairs=pairs, source=probes.source, left_out=left_out, k=k
    )


async def repeat_replay(earlier: Replay) -> Replay:
    """Sends the requests that both snapshots answered once more, in the same order."""
    probes = [one.probe for one in earlier.answered]
    return await replay(
        earlier.first, earlier.second, Probes(probes=probes, source=earlier.source), k=earlier.k
    )


def overlap(first: Sequence[str], second: Sequence[str]) -> float:
    """Returns the share of ids in common, relative to the longer list; 1 if both are empty."""
    longer = max(len(set(first)), len(set(second)))
    return len(set(first) & set(second)) / longer if longer else 1.0


def summarize(replay: Replay) -> dict[str, object]:
    """Returns figures over all requests.

    Keys: requests; overlap@k, mean 0..1; unchanged, share of lists with equal ids in equal order;
        refused; p50 and p99 latency of both snapshots in ms, and their ratio, second to first.
    """
    pairs, k = replay.pairs, replay.k
    times = np.array([[one.first.seconds, one.second.seconds] for one in replay.answered])
    found: dict[str, object] = {
        "requests": len(pairs),
        f"overlap@{k}": _mean([pair.overlap for pair in pairs]),
        "unchanged": _mean([_is_unchanged(pair, k) for pair in pairs]),
        "refused": sum(bool(pair.refused) for pair in pairs),
    }
    if len(times):
        for share, label in ((0.5, "p50"), (0.99, "p99")):
            first, second = np.quantile(times, share, axis=0) * 1e3
            found[f"{label}_ms_first"] = round(float(first), 3)
            found[f"{label}_ms_second"] = round(float(second), 3)
            found[f"{label}_ratio"] = round(float(second / first), 3)
    return found


def worst_pairs(replay: Replay, limit: int) -> list[ReplayPair]:
    """Returns the requests whose answers differ most; refused requests come first."""
    differing = [one for one in replay.pairs if one.refused or one.overlap < 1]
    return sorted(differing, key=lambda one: (not one.refused, one.overlap))[:limit]


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


def _is_unchanged(pair: ReplayPair, k: int) -> bool:
    return not pair.refused and pair.first.ids[:k] == pair.second.ids[:k]
