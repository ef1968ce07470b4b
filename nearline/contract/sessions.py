"""Conversations: what was asked and answered before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

MAX_SESSION_ID = 128


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer, which is empty where there was none.

    condensed: The question as it was looked for, where that differs. time: UTC.
    """

    question: str
    answer: str
    condensed: str = ""
    snapshot_id: str = ""
    time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A conversation. version: Counts its changes, 0 where nothing is remembered.

    turns: Oldest first. expire_time: When it is forgotten unless it goes on, UTC.
    """

    id: str
    version: int
    turns: Sequence[Turn]
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """A session after a turn. saved: Whether the turn was remembered. reason: Why it was not."""

    id: str
    version: int
    saved: bool
    reason: str = ""
