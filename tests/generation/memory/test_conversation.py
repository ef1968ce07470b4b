"""Tests which turns a question follows, and what is said if its own cannot be saved."""

from __future__ import annotations

import pytest

from generation.memory.conversation import ConversationHistory, ConversationMemory
from nearline.access.caller import Caller
from nearline.contract import DEFAULT_COLLECTION, Question, SessionState, Turn
from nearline.errors import Unsupported

CALLER = Caller()
TURNS = (Turn("How do I stop a thread?", "With an event."), Turn("and a subprocess?", "Kill it."))


async def _remember(memory: ConversationMemory, question: Question) -> SessionState | None:
    return await memory.remember(
        question,
        DEFAULT_COLLECTION,
        CALLER,
        ConversationHistory((), 3),
        condensed="",
        answer="An answer.",
        snapshot_id="s",
    )


async def test_a_question_without_a_session_has_its_own_history_and_is_not_saved() -> None:
    memory = ConversationMemory(None)
    question = Question(text="why?", history=TURNS)
    assert await memory.recall(question, DEFAULT_COLLECTION, CALLER) == (list(TURNS), 0)
    few = ConversationMemory(None, history_tokens=8)
    recalled = await few.recall(question, DEFAULT_COLLECTION, CALLER)
    assert list(recalled.turns) == [TURNS[1]]
    assert await _remember(memory, question) is None


async def test_a_session_on_a_service_without_sessions_is_refused_or_reported() -> None:
    memory = ConversationMemory(None)
    question = Question(text="why?", session_id="mine")
    with pytest.raises(Unsupported, match="sessions are disabled"):
        await memory.recall(question, DEFAULT_COLLECTION, CALLER)
    state = await _remember(memory, question)
    assert state is not None and (state.id, state.version, state.saved) == ("mine", 3, False)
    assert "sessions are disabled" in state.reason
