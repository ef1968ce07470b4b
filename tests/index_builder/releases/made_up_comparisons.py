"""Made-up comparisons for checks of the gate, each with a measured value that is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from index_builder.releases import checks_behaviour, checks_items, checks_retrieval
from index_builder.releases.probes import Probe
from index_builder.releases.replay import Answer, Replay, ReplayPair
from nearline import contract as c
from nearline.v1 import snapshot_pb2

Patch = pytest.MonkeyPatch
VECTOR = np.ones(2, np.float32)
SEARCH = Probe(fingerprint="", query=c.Query(vector=VECTOR))
LIST = Probe(fingerprint="", audience=c.Audience(surface="home"))


@dataclass(frozen=True, kw_only=True)
class Made:
    """The attributes of a loaded snapshot that the checks read."""

    name: str = "s"
    manifest: snapshot_pb2.Manifest = field(default_factory=snapshot_pb2.Manifest)
    documents: Sequence[str] = ()
    trained: Any = None
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


def pair(*, overlap: float = 1.0, seconds: tuple[float, float] = (1.0, 1.0)) -> ReplayPair:
    first, second = (Answer(["a"], spent) for spent in seconds)
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


def timed(patch: Patch, first: Sequence[ReplayPair], again: Sequence[ReplayPair]) -> dict[str, Any]:
    """Returns a comparison with these times, and these if the requests are sent again."""

    async def repeat_replay(earlier: Replay) -> Replay:
        return replayed(again)

    patch.setattr(checks_retrieval, "repeat_replay", repeat_replay)
    return compare(replay=replayed(first))


def of_latency(patch: Patch, value: float) -> dict[str, Any]:
    pairs = [pair(seconds=(1.0, value))] * 20
    return timed(patch, pairs, pairs)


def of_small_latency(patch: Patch, value: float) -> dict[str, Any]:
    pairs = [pair(seconds=(0.001, 0.001 + value))] * 20
    return timed(patch, pairs, pairs)


def lists_of(patch: Patch, ours: float, theirs: float = 0.0, users: int = 20) -> None:
    wanted = SimpleNamespace(users=[f"u{number}" for number in range(users)])
    patch.setattr(checks_behaviour, "future_interactions", lambda *_, **more: wanted)
    patch.setattr(
        checks_behaviour,
        "ndcg_of_lists",
        lambda snapshot, *_, **more: np.full(users, ours if snapshot is OURS else theirs),
    )


OURS, THEIRS = SimpleNamespace(name="ours"), SimpleNamespace(name="theirs")


def trained() -> snapshot_pb2.Manifest:
    manifest = snapshot_pb2.Manifest()
    manifest.behaviour.blends.add(split="last-n:1", k=10)
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
