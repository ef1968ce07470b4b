"""What checks look at: the candidate, the live snapshot, and what is allowed."""

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
    """A candidate beside the live snapshot.

    live: None: there is none; alone: why, in words. replay: The live snapshot first; None: nothing
    could be asked of both. probes: What was recorded, newest first; may be empty.
    allow_model_change: Another embedder is wanted. embedding: An embedding service was named.
    later: Interactions that may be later than those learned from; None: nobody gave any.
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
        """Whether vectors of one can be asked of the other."""
        live = self.live
        return (
            live is not None
            and live.fingerprint == self.candidate.fingerprint
            and live.manifest.dim == self.candidate.manifest.dim
        )
