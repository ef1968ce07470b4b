"""Rules that select an index from measurements on a sample of the vectors."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nearline.errors import InvalidRequest

DEFAULT_TARGET_RECALL = 0.97
# Scanning fewer vectors is faster than any index.
MIN_VECTORS = 1_000
# Training a list needs at least 39 vectors; lists pay off from a few thousand vectors.
# Source: faiss, Clustering.h (min_points_per_centroid).
_POINTS_PER_LIST = 39
_MAX_LISTS = 65_536
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_BYTES = re.compile(r"^(\d+(?:\.\d+)?)\s*(?:([kmgt])i?)?b?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexCandidate:
    """An index with search widths.

    factory: FAISS factory string, as built over all vectors.
    ef_search, nprobe: 0 if the index has no such parameter.
    """

    factory: str
    ef_search: int = 0
    nprobe: int = 0

    def __str__(self) -> str:
        knobs = (("ef", self.ef_search), ("nprobe", self.nprobe))
        return " ".join([self.factory, *(f"{name} {value}" for name, value in knobs if value)])


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexTrial:
    """The measurement of a candidate.

    recall: Recall@10 against an exact scan of the sample, 0..1; the lower of two values, for held
        out vectors and for mixtures of two vectors.
    latency_us: Expected latency of one query in one thread, over all vectors of a shard.
    bytes: Expected size of the index files of all shards.
    """

    candidate: IndexCandidate
    recall: float
    latency_us: float
    bytes: int

    def record(self) -> dict[str, str | int | float]:
        """Returns the trial as one JSON object."""
        return {
            "factory": self.candidate.factory,
            "ef_search": self.candidate.ef_search,
            "nprobe": self.candidate.nprobe,
            "recall": round(self.recall, 4),
            "latency_us": round(self.latency_us, 1),
            "bytes": self.bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexChoice:
    """The chosen index and its alternatives.

    max_bytes: Limit of the size; 0 if there is none.
    sample: Number of vectors indexed for the measurements.
    seconds: Duration of the selection.
    """

    chosen: IndexTrial
    trials: Sequence[IndexTrial]
    target_recall: float
    max_bytes: int
    sample: int
    seconds: float

    def record(self) -> dict[str, object]:
        """Returns the choice as one JSON object that marks the trials of the frontier."""
        best = frontier(self.trials)
        return {
            "target_recall": self.target_recall,
            "max_bytes": self.max_bytes or None,
            "sample": self.sample,
            "seconds": round(self.seconds, 1),
            "chosen": self.chosen.record(),
            "trials": [trial.record() | {"frontier": trial in best} for trial in self.trials],
        }


def parse_bytes(text: str) -> int:
    """Parses a size such as 2GiB, 500M, 1.5g or 1048576; units are powers of 1,024. Empty: 0.

    Raises: InvalidRequest: the text is not a size.
    """
    if not text.strip():
        return 0
    found = _BYTES.match(text.strip())
    size = float(found[1]) * _UNITS[(found[2] or "").lower()] if found else 0.0
    if size < 1:
        raise InvalidRequest(
            f"max_memory is {text!r}; use a size such as 2GiB, 500MiB or 1073741824",
            field="max_memory",
        )
    return int(size)


def ivf_lists(vectors: int) -> int:
    """Returns the number of lists of an IVF index: the power of two nearest to 4 * sqrt(vectors).

    Source: faiss wiki, Guidelines to choose an index (4 to 16 times the root of the vectors).
    """
    if vectors < _POINTS_PER_LIST:
        return 1
    wanted = 1 << round(math.log2(4 * math.sqrt(vectors)))
    most = 1 << int(math.log2(vectors / _POINTS_PER_LIST))
    return min(wanted, most, _MAX_LISTS)


def factories(lists: int) -> list[str]:
    """Returns the factory strings to try; the last ones are skipped when time runs out.

    The extremes of speed and memory come first. FAISS has no graph over RaBitQ for inner product.
    """
    return [
        "Flat",
        "HNSW32,SQ8_direct_signed,Refine(SQfp16)",
        f"IVF{lists},SQ8",
        "HNSW32,SQbf16",
        f"IVF{lists},SQ4",
        "HNSW16,SQ8",
        f"IVF{lists},RaBitQfs4,Refine(SQ8)",
        "HNSW32,Flat",
        f"IVF{lists},RaBitQfs,Refine(SQ8)",
    ]


def frontier(trials: Sequence[IndexTrial]) -> list[IndexTrial]:
    """Returns the Pareto frontier of recall, latency and memory, fastest first.

    O(n^2), for tens of trials.
    """
    best = [
        trial
        for trial in trials
        if not any(_beats(other, trial) for other in trials if other is not trial)
    ]
    return sorted(best, key=lambda trial: (trial.latency_us, trial.bytes, -trial.recall))


def choose_trial(
    trials: Sequence[IndexTrial], target_recall: float, max_bytes: int = 0
) -> IndexTrial:
    """Returns the fastest trial that meets both limits; among equally fast ones, the smallest.

    Args:
        trials: At least one.
        target_recall: Minimum recall, 0..1.
        max_bytes: Maximum size; 0 disables the limit.
    Raises: InvalidRequest: no trial meets the limits; the message names the nearest ones.
    """
    fitting = [trial for trial in trials if not max_bytes or trial.bytes <= max_bytes]
    good = [trial for trial in fitting if trial.recall >= target_recall]
    if good:
        return min(good, key=lambda trial: (trial.latency_us, trial.bytes, -trial.recall))
    near = []
    if fitting:
        best = max(fitting, key=lambda trial: (trial.recall, -trial.latency_us))
        near.append(f"{best.candidate} reaches recall {best.recall:.3f} in {_mib(best.bytes)}")
    exact = [trial for trial in trials if trial.recall >= target_recall]
    if exact:
        least = min(exact, key=lambda trial: (trial.bytes, trial.latency_us))
        near.append(f"{least.candidate} needs {_mib(least.bytes)} for recall {least.recall:.3f}")
    if not near:
        least = min(trials, key=lambda trial: (trial.bytes, -trial.recall))
        near.append(f"{least.candidate} needs {_mib(least.bytes)} at recall {least.recall:.3f}")
    limit = f" in {_mib(max_bytes)}" if max_bytes else ""
    raise InvalidRequest(
        f"no index reaches recall {target_recall:g}{limit}; nearest: {'; '.join(near)}. "
        "Lower --target-recall, raise --max-memory, or choose an --index",
        field="target_recall",
    )


def _beats(one: IndexTrial, other: IndexTrial) -> bool:
    """Returns whether a trial is nowhere worse than another and somewhere better."""
    mine = (-one.recall, one.latency_us, one.bytes)
    theirs = (-other.recall, other.latency_us, other.bytes)
    return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"
