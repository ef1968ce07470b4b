"""Reads the turns before a question, and saves the new turn."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from generation.memory.sessions import SessionStore, recent_turns
from nearline import contract as c
from nearline.access.caller import Caller
from nearline.errors import Conflict, NearlineError, Unsupported

_TRIES = 3


class ConversationHistory(NamedTuple):
    """The conversation before a question.

    turns: The latest turns, oldest first, as many as `history_tokens` allows.
    version: Version of the session; 0 without a session.
    """

    turns: Sequence[c.Turn]
    version: int = 0


class ConversationMemory:
    """Reads and writes conversations; keeps no state itself.

    Args:
        sessions: Store of conversations; None disables sessions.
        history_tokens: Maximum tokens of earlier turns per question.
    """

    def __init__(self, sessions: SessionStore | None, history_tokens: int = 1_000) -> None:
        self._sessions = sessions
        self._history_tokens = history_tokens

    @property
    def sessions(self) -> SessionStore:
        """The store of conversations. Raises: Unsupported: sessions are disabled."""
        if self._sessions is None:
            raise Unsupported(
                "sessions are disabled on this service; start it with --redis URL (nearline up: "
                "without --no-redis), or send history"
            )
        return self._sessions

    async def recall(
        self, question: c.Question, collection: str, caller: Caller
    ) -> ConversationHistory:
        """Returns the turns before a question.

        Raises: Unsupported: sessions are disabled. NotReady: Redis is unavailable. Conflict: the
            session has a version other than the one that the caller expects. InvalidRequest: the id
            is malformed.
        """
        if not question.session_id:
            return ConversationHistory(recent_turns(question.history, self._history_tokens))
        session = await self.sessions.load(collection, caller.owner, question.session_id)
        if question.session_version not in (0, session.version):
            raise Conflict(
                f"session {question.session_id!r} has version {session.version}, but the question "
                f"expects {question.session_version}; read the session and ask again"
            )
        return ConversationHistory(
            recent_turns(session.turns, self._history_tokens), session.version
        )

    async def remember(
        self,
        question: c.Question,
        collection: str,
        caller: Caller,
        recalled: ConversationHistory,
        *,
        condensed: str,
        answer: str,
        snapshot_id: str,
    ) -> c.SessionState | None:
        """Adds a turn to the session of a question; never raises.

        If another caller has added a turn in the meantime, the turn is added after that one, unless
        the question names a version: then it is not saved.
        Returns: The state of the session; None if the question has no session.
        """
        if not question.session_id:
            return None
        turn = c.Turn(
            question.text,
            answer,
            condensed if condensed != question.text else "",
            snapshot_id,
            datetime.now(UTC),
        )
        version, name = recalled.version, question.session_id
        try:
            for left in reversed(range(_TRIES)):
                try:
                    version = await self.sessions.append(
                        collection, caller.owner, name, turn, version
                    )
                    return c.SessionState(id=name, version=version, saved=True)
                except Conflict:
                    if question.session_version or not left:
                        raise
                    session = await self.sessions.load(collection, caller.owner, name)
                    version = session.version
        except NearlineError as error:
            return c.SessionState(id=name, version=version, saved=False, reason=error.message)
        raise AssertionError("unreachable: the last try returns or raises")
