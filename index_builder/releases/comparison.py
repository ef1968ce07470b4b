"""The input of all checks: the candidate, the live snapshot, and the limits."""

from __future__ import annotations

from dataclasses import dataclass

from index_builder.interactions.records import Interactions
from index_builder.releases.gate_report import SkippedCheck
from index_builder.releases.probes import Probe
from index_builder.releases.replay import Replay
from index_builder.releases.snapshot_loader import LoadedSnapshot
from index_builder.releases.thresholds import GateLimits

OFF = "switched off by the thresholds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A candidate and the live snapshot that it would replace.

    live: The live snapshot; None if there is none, and `alone` gives the reason as text.
    replay: Replay of requests, with the live snapshot first; None if no request could be sent to
        both.
    probes: Recorded requests, newest first; may be empty.
    allow_model_change: Whether a change of the embedder is intended.
    later: Interactions, possibly after the training; None if there are none.
    """

    candidate: LoadedSnapshot
    live: LoadedSnapshot | None
    alone: str
    limits: GateLimits
    replay: Replay | None = None
    probes: tuple[Probe, ...] = ()
    judgements_sha256: str = ""
    allow_model_change: bool = False
    later: Interactions | None = None

    def require_enabled(self, limit: float) -> None:
        """Raises SkippedCheck if a check is switched off by a negative limit."""
        if limit < 0:
            raise SkippedCheck(OFF)

    def require_live(self, limit: float = 0.0) -> LoadedSnapshot:
        """Returns the live snapshot.

        Raises: SkippedCheck: the limit switches the check off, or there is no live snapshot.
        """
        self.require_enabled(limit)
        if self.live is None:
            raise SkippedCheck(self.alone)
        return self.live

    @property
    def growth(self) -> float:
        """How many times as many documents the candidate has as the live snapshot, at least 1.

        What a snapshot costs may grow as much: a collection that is filled over the API begins
        empty.
        """
        if self.live is None:
            return 1.0
        ours, theirs = self.candidate.manifest.documents, self.live.manifest.documents
        return max(1.0, ours / max(1, theirs))

    @property
    def same_model(self) -> bool:
        """Whether both snapshots have the same vector space."""
        live = self.live
        return (
            live is not None
            and live.fingerprint == self.candidate.fingerprint
            and live.manifest.dim == self.candidate.manifest.dim
        )
