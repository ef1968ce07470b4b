"""Requests asked of two snapshots in turn: what they have in common, and which is faster."""

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
    """One request, answered by both.

    first, second: The answers, with the median of the times. overlap: Share of the first k ids in
    common, 0..1. refused: Why the second one refuses what the first one answers; empty: it answers.
    """

    probe: Probe
    first: Answer
    second: Answer
    overlap: float
    refused: str = ""

    @property
    def drift(self) -> float | None:
        """Best score of the second less that of the first; None: either found nothing."""
        if self.first.best is None or self.second.best is None:
            return None
        return self.second.best - self.first.best


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What became of all requests.

    source: Where they are from, `probes.RECORDED` or `probes.GOLDEN`. left_out: How many could not
    be asked, by reason.
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
    """Asks both snapshots the same.

    Each request is asked of both one after the other, in turns this one first and that one, once to
    warm and then so often that chance does not decide; of the times the median counts. Times of
    searches are without embedding.

    Args:
        k: Ids that are compared.
        passes: How often each is timed, >= 1.
    """
    left_out = Counter(probes.unreadable)
    asked: list[tuple[Probe, PreparedRequest, PreparedRequest]] = []
    pairs: list[ReplayPair] = []
    for probe in probes.probes:
        try:
            one = await prepare_request(first, probe)
            answer = await one()
        except UnsupportedRequest as why:
            left_out[str(why)] += 1
            continue
        except NearlineError as error:
            left_out[f"{first.id} refuses it: {type(error).__name__}"] += 1
            continue
        try:
            other = await prepare_request(second, probe)
            await other()
        except UnsupportedRequest as why:
            left_out[str(why)] += 1
            continue
        except NearlineError as error:
            # A router would refuse it from the flip on.
            nothing = Answer([], None, 0.0)
            pairs.append(
                ReplayPair(
                    probe=probe, first=answer, second=nothing, overlap=0.0, refused=error.message
                )
            )
            continue
        asked.append((probe, one, other))
    times: list[tuple[list[float], list[float]]] = [([], []) for _ in asked]
    answers: list[tuple[Answer, Answer]] = []
    for number in range(passes):
        answers = []
        for at, (_, one, other) in enumerate(asked):
            if (at + number) % 2:
                theirs, ours = await other(), await one()
            else:
                ours, theirs = await one(), await other()
            times[at][0].append(ours.seconds)
            times[at][1].append(theirs.seconds)
            answers.append((ours, theirs))
    for (probe, _, _), (ours, theirs), (mine, other_s) in zip(asked, answers, times, strict=True):
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
    """Returns the share of ids in common, of the longer of two lists; 1 where both are empty."""
    longer = max(len(set(first)), len(set(second)))
    return len(set(first) & set(second)) / longer if longer else 1.0
