"""The input of all checks: the candidate, the live snapshot, and the limits."""

from __future__ import annotations

from dataclasses import dataclass

from index_builder.interactions.records import Interactions
from index_builder.releases.probes import Probe
from index_builder.releases.replay import Replay
from index_builder.releases.snapshot_loader import LoadedSnapshot
from index_builder.releases.thresholds import GateLimits

OFF = "switched off by the thresholds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A candidate and the live snapshot that it would replace.

    live: None if there is none; `alone` gives the reason as text.
    replay: With the live snapshot first; None if no request could be sent to both.
    probes: Recorded requests, newest first; may be empty.
    allow_model_change: Whether another embedder is intended.
    embedding: Whether an embedding service is available.
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
    embedding: bool = False
    later: Interactions | None = None

    @property
    def same_model(self) -> bool:
        """Whether both snapshots have the same vector space."""
        live = self.live
        return (
            live is not None
            and live.fingerprint == self.candidate.fingerprint
            and live.manifest.dim == self.candidate.manifest.dim
        )
