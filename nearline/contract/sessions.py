"""Conversations: sessions and their turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

MAX_SESSION_ID = 128


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer; the answer is empty if it was refused.

    condensed: The search query, if it differs from the question. time: UTC.
    """

    question: str
    answer: str
    condensed: str = ""
    snapshot_id: str = ""
    time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A conversation. version: Number of its changes; 0 if nothing is stored.

    turns: Oldest first. expire_time: When the session expires unless another turn follows, UTC.
    """

    id: str
    version: int
    turns: Sequence[Turn]
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """A session after a turn. saved: Whether the turn was stored. reason: Why it was not."""

    id: str
    version: int
    saved: bool
    reason: str = ""
