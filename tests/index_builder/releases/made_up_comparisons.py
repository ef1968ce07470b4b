"""Made-up comparisons for checks of the gate, each with a measured value that is known."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from index_builder.releases import (
    checks_behaviour,
    checks_cache,
    checks_cost,
    checks_items,
    checks_retrieval,
)
from index_builder.releases.probes import Probe
from index_builder.releases.replay import Answer, Replay, ReplayPair
from nearline import contract as c
from nearline.v1 import snapshot_pb2
from retrieval.cache.cached_list import CacheLevel
from retrieval.recommend.cached_candidates import CandidateCache

Patch = pytest.MonkeyPatch
VECTOR = np.ones(2, np.float32)
SEARCH = Probe(fingerprint="", query=c.Query(vector=VECTOR))
LIST = Probe(fingerprint="", audience=c.Audience(surface="home"))
LARGE = 1 << 40


@dataclass(frozen=True, kw_only=True)
class Made:
    """The attributes of a loaded snapshot that the checks read."""

    name: str = "s"
    manifest: snapshot_pb2.Manifest = field(default_factory=snapshot_pb2.Manifest)
    documents: Sequence[str] = ()
    bytes: int = 1
    load_s: float = 1.0
    trained: Any = None
    embedders: Any = None
    store: Any = field(
        default_factory=lambda: SimpleNamespace(log_records=lambda collection: iter(()))
    )

    @property
    def id(self) -> str:
        return self.name

    @property
    def fingerprint(self) -> str:
        return self.manifest.embedder.fingerprint

    @property
    def shards(self) -> Sequence[object]:
        return ()

    @property
    def served(self) -> object:
        return SimpleNamespace(name="default")

    def ids(self) -> list[str]:
        return list(self.documents)


def compare(candidate: Made | None = None, live: Made | None = None, **more: Any) -> dict[str, Any]:
    return {
        "candidate": candidate or Made(),
        "live": live or Made(name="live"),
        "alone": "",
        **more,
    }


def replayed(pairs: Sequence[ReplayPair]) -> Replay:
    none: Any = None
    return Replay(first=none, second=none, pairs=pairs, source="golden")


def pair(
    *,
    overlap: float = 1.0,
    seconds: tuple[float, float] = (1.0, 1.0),
    best: Sequence[float] = (1, 1),
) -> ReplayPair:
    first, second = (
        Answer(["a"], score, spent) for score, spent in zip(best, seconds, strict=True)
    )
    return ReplayPair(probe=SEARCH, first=first, second=second, overlap=overlap)


# --- Comparisons whose measured value is `value` ----------------------------------------------


def of_recall(patch: Patch, value: float) -> dict[str, Any]:
    async def recalls_of(snapshot: object, queries: object) -> Sequence[float]:
        return [value, value]

    patch.setattr(checks_retrieval, "_queries", lambda *_: np.ones((2, 2), np.float32))
    patch.setattr(checks_retrieval, "recalls_of", recalls_of)
    return compare()


def of_promised_recall(patch: Patch, value: float) -> dict[str, Any]:
    manifest = snapshot_pb2.Manifest()
    manifest.quality.queries, manifest.quality.recall_at_10 = 10, 1.0
    of_recall(patch, value)
    return compare(Made(manifest=manifest))


def of_overlap(patch: Patch, value: float) -> dict[str, Any]:
    return compare(replay=replayed([pair(overlap=value), pair(overlap=value)]))


def drift_of(moved: int) -> float:
    """The index of 40 scores in two bins of 20, of which `moved` go to the upper one."""
    shares = [(np.array([20 - part, 20 + part]) + 0.5) / 41 for part in (0, moved)]
    return float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))


def of_drift(patch: Patch, value: float) -> dict[str, Any]:
    moved = next(one for one in range(20) if math.isclose(drift_of(one), value))
    pairs = [pair(best=(float(at), float(at + 20 * (at < moved)))) for at in range(40)]
    return compare(replay=replayed(pairs))


def of_ndcg(theirs: float | None) -> Callable[[Patch, float], dict[str, Any]]:
    def made(patch: Patch, value: float) -> dict[str, Any]:
        async def ndcg(snapshot: Made, labels: object) -> float:
            assert theirs is not None or snapshot.name != "live"
            return theirs if snapshot.name == "live" and theirs is not None else value

        patch.setattr(checks_retrieval, "_ndcg", ndcg)
        patch.setattr(
            checks_retrieval, "read_judgements", lambda *_: SimpleNamespace(queries=["q"])
        )
        found = compare(judgements_sha256="x")
        return found if theirs is not None else {**found, "live": None}

    return made


NAMES = [f"d{number}" for number in range(1_000)]


def of_missing(patch: Patch, value: float) -> dict[str, Any]:
    return compare(
        Made(documents=NAMES[round(1_000 * value) :]), Made(name="live", documents=NAMES)
    )


def of_moved(patch: Patch, value: float) -> dict[str, Any]:
    moved = set(NAMES[: round(1_000 * value)])

    async def items(snapshot: Made, ids: Sequence[str]) -> Mapping[str, c.Item]:
        turned = -1 if snapshot.name == "live" else 1
        return {
            one: c.Item(id=one, text=one, vector=(turned if one in moved else 1) * VECTOR)
            for one in ids
        }

    patch.setattr(checks_items, "_items", items)
    return compare(Made(documents=NAMES), Made(name="live", documents=NAMES))


def of_turned(factory: str) -> Callable[[Patch, float], dict[str, Any]]:
    """The cosine of the vectors of one document is the value."""

    def made(patch: Patch, value: float) -> dict[str, Any]:
        before, now = np.array([1.0, 0.0]), np.array([value, math.sqrt(1 - value**2)])

        async def items(snapshot: Made, ids: Sequence[str]) -> Mapping[str, c.Item]:
            vector = (before if snapshot.name == "live" else now).astype(np.float32)
            return {one: c.Item(id=one, text=one, vector=vector) for one in ids}

        patch.setattr(checks_items, "_items", items)
        candidate = Made(documents=NAMES, manifest=snapshot_pb2.Manifest(index_factory=factory))
        return compare(candidate, Made(name="live", documents=NAMES))

    return made


def of_swapped(patch: Patch, value: float) -> dict[str, Any]:
    async def items(snapshot: Made, ids: Sequence[str]) -> Mapping[str, c.Item]:
        return {one: c.Item(id=one, text=f"{one} of {snapshot.name}") for one in ids}

    patch.setattr(checks_items, "_items", items)
    patch.setattr(checks_items, "_count_swapped", lambda *_: round(1_000 * value))
    return compare(Made(documents=NAMES), Made(name="live", documents=NAMES))


def of_vectors(factory: str) -> Callable[[Patch, float], dict[str, Any]]:
    def made(patch: Patch, value: float) -> dict[str, Any]:
        async def embed(texts: Sequence[str], *_: object) -> object:
            fresh = np.array([[value, math.sqrt(1 - value**2)]] * len(texts), np.float64)
            return SimpleNamespace(refused={}, vectors=fresh)

        stored = np.array([[1.0, 0.0]] * 4)
        patch.setattr(checks_items, "_sample_chunks", lambda *_: (["a"] * 4, stored))
        manifest = snapshot_pb2.Manifest(index_factory=factory)
        manifest.embedder.fingerprint = "f"
        candidate = Made(manifest=manifest, embedders=SimpleNamespace(embed_documents=embed))
        return compare(candidate, embedding=True)

    return made


def of_size(patch: Patch, value: float) -> dict[str, Any]:
    return compare(Made(bytes=round(LARGE * value)), Made(name="live", bytes=LARGE))


def of_small_size(patch: Patch, value: float) -> dict[str, Any]:
    """Ten times as large; the difference is `value` bytes."""
    return compare(Made(bytes=round(value) + 1_000), Made(name="live", bytes=1_000))


def of_load(first_s: float, again_s: float, live_s: float, patch: Patch) -> dict[str, Any]:
    @contextlib.asynccontextmanager
    async def load_snapshot(*_: object) -> AsyncIterator[object]:
        yield SimpleNamespace(load_s=again_s)

    patch.setattr(checks_cost, "load_snapshot", load_snapshot)
    return compare(Made(load_s=first_s), Made(name="live", load_s=live_s))


def timed(patch: Patch, first: Sequence[ReplayPair], again: Sequence[ReplayPair]) -> dict[str, Any]:
    """Returns a comparison with these times, and these if the requests are sent again."""

    async def repeat_replay(earlier: Replay) -> Replay:
        return replayed(again)

    patch.setattr(checks_cost, "repeat_replay", repeat_replay)
    return compare(replay=replayed(first))


def of_latency(patch: Patch, value: float) -> dict[str, Any]:
    pairs = [pair(seconds=(1.0, value))] * 20
    return timed(patch, pairs, pairs)


def of_small_latency(patch: Patch, value: float) -> dict[str, Any]:
    pairs = [pair(seconds=(0.001, 0.001 + value))] * 20
    return timed(patch, pairs, pairs)


def of_warm(patch: Patch, value: float) -> dict[str, Any]:
    warm = round(20 * value)

    async def cache_level(snapshot: Made, cache: object, probe: Probe, _: object) -> CacheLevel:
        number = int(probe.list_options.why_not_id)
        hit = snapshot.name == "live" or number < warm
        return CacheLevel.NEAR if hit else CacheLevel.LIVE

    async def prewarm(*_: object) -> int:
        return 0

    patch.setattr(checks_cache, "_cache_level", cache_level)
    patch.setattr(checks_cache, "_list_key", lambda probe: probe.list_options.why_not_id)
    patch.setattr(CandidateCache, "prewarm", prewarm)
    probes = [
        Probe(
            fingerprint="",
            audience=LIST.audience,
            list_options=c.RecommendOptions(why_not_id=str(number)),
        )
        for number in range(20)
    ]
    return compare(probes=tuple(probes))


def known_items(share: float) -> object:
    """Returns what a snapshot learned that has interactions with a share of its items."""
    interactions = (np.arange(1_000) < round(1_000 * share)).astype(np.int64)
    return SimpleNamespace(tables=SimpleNamespace(interactions=interactions))


def of_cold(patch: Patch, value: float) -> dict[str, Any]:
    candidate, live = known_items(0.5 - value), known_items(0.5)
    return compare(Made(trained=candidate), Made(name="live", trained=live))


def of_fresh(patch: Patch, value: float) -> dict[str, Any]:
    candidate, live = snapshot_pb2.Manifest(), snapshot_pb2.Manifest()
    live.behaviour.newest_time.seconds = 1_000_000
    candidate.behaviour.newest_time.FromMicroseconds(1_000_000_000_000 - round(value * 1e6))
    return compare(Made(manifest=candidate), Made(name="live", manifest=live))


def lists_of(patch: Patch, ours: float, theirs: float = 0.0, users: int = 20) -> None:
    wanted = SimpleNamespace(users=[f"u{number}" for number in range(users)])
    patch.setattr(checks_behaviour, "future_interactions", lambda *_, **more: wanted)
    patch.setattr(
        checks_behaviour,
        "ndcg_of_lists",
        lambda snapshot, *_, **more: np.full(users, ours if snapshot is OURS else theirs),
    )


OURS, THEIRS = SimpleNamespace(name="ours"), SimpleNamespace(name="theirs")


def trained(promised: float = 0.0, **ranker: Any) -> snapshot_pb2.Manifest:
    manifest = snapshot_pb2.Manifest()
    blend = manifest.behaviour.blends.add(split="last-n:1", k=10, validation_ndcg=promised)
    if ranker:
        blend.ranker.CopyFrom(snapshot_pb2.RankerCard(**ranker))
    return manifest


def of_recommend(patch: Patch, value: float) -> dict[str, Any]:
    lists_of(patch, ours=0.5 - value, theirs=0.5)
    candidate, live = Made(manifest=trained(), trained=OURS), Made(name="live", trained=THEIRS)
    return compare(candidate, live, later=object())


def held_out(against: str, ndcg: float, others: float) -> snapshot_pb2.Manifest:
    """Returns the manifest of models that were compared at their training."""
    manifest = trained()
    manifest.behaviour.factors_id = "ours"
    manifest.behaviour.comparisons.add(
        against=against,
        users=20,
        ndcg=ndcg,
        against_ndcg=others,
        gain_low=ndcg - others - 0.01,
        gain_high=ndcg - others + 0.01,
    )
    return manifest


def of_popular(patch: Patch, value: float) -> dict[str, Any]:
    return compare(Made(manifest=held_out("popular", 0.5 + value, 0.5), trained=OURS))


def of_held_out(patch: Patch, value: float) -> dict[str, Any]:
    live = trained()
    live.behaviour.factors_id = "theirs"
    candidate = Made(manifest=held_out("theirs", 0.5 - value, 0.5), trained=OURS)
    return compare(candidate, Made(name="live", manifest=live, trained=THEIRS))


def of_promise(patch: Patch, value: float) -> dict[str, Any]:
    lists_of(patch, ours=0.5 * (1 - value))
    return compare(Made(manifest=trained(0.5), trained=OURS), later=object())
