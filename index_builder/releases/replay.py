"""Replays requests on two snapshots alternately, and compares answers and latencies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from index_builder.releases.probes import Probe, Probes
from index_builder.releases.request_runner import (
    Answer,
    PreparedRequest,
    UnsupportedRequest,
    prepare_request,
)
from index_builder.releases.snapshot_loader import LoadedSnapshot
from nearline.errors import NearlineError

K = 10
PASSES = 3


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

    @property
    def drift(self) -> float | None:
        """Best score of the second less that of the first; None if either found nothing."""
        if self.first.best is None or self.second.best is None:
            return None
        return self.second.best - self.first.best


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


async def replay(
    first: LoadedSnapshot,
    second: LoadedSnapshot,
    probes: Probes,
    *,
    k: int = K,
    passes: int = PASSES,
) -> Replay:
    """Sends the same requests to both snapshots.

    Each request goes to both snapshots in succession, and they take turns in being first: once to
    warm up, then several times to average out chance. The median time counts. Times of searches
    exclude embedding.

    Args:
        k: Number of ids to compare.
        passes: How often each request is timed, at least 1.
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
            # A router would refuse it after the flip.
            nothing = Answer([], None, 0.0)
            pairs.append(
                ReplayPair(
                    probe=probe, first=answer, second=nothing, overlap=0.0, refused=error.message
                )
            )
            continue
        prepared.append((probe, send_first, send_second))
    times: list[tuple[list[float], list[float]]] = [([], []) for _ in prepared]
    answers: list[tuple[Answer, Answer]] = []
    for number in range(passes):
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


def overlap(first: Sequence[str], second: Sequence[str]) -> float:
    """Returns the share of ids in common, relative to the longer list; 1 if both are empty."""
    longer = max(len(set(first)), len(set(second)))
    return len(set(first) & set(second)) / longer if longer else 1.0
