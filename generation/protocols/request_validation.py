"""Validates a question before any work is done for it."""

from __future__ import annotations

from collections.abc import Collection

from nearline import contract as c
from nearline.errors import InvalidRequest


def check_question(question: c.Question, writers: Collection[str]) -> None:
    """Raises InvalidRequest if a question can never be answered; names the field.

    Args:
        question: The question.
        writers: Allowed values of `backend`.
    """
    _check_text("question", question.text)
    for name, value, most in (
        ("max_tokens", question.max_tokens, c.MAX_ANSWER_TOKENS),
        ("documents", question.documents, c.MAX_EVIDENCE_DOCUMENTS),
    ):
        if not 1 <= value <= most:
            raise InvalidRequest(f"{name} is {value}; 1..{most} is allowed", field=name)
    if not 0 <= question.temperature <= c.MAX_TEMPERATURE:
        raise InvalidRequest(
            f"temperature is {question.temperature:g}; 0..{c.MAX_TEMPERATURE:g} is allowed",
            field="temperature",
        )
    if question.backend and question.backend not in writers:
        raise InvalidRequest(
            f"there is no backend {question.backend!r}; there are {', '.join(sorted(writers))}. "
            "Configure models with NEARLINE_GENERATION_SMALL and _LARGE of the service",
            field="backend",
        )
    if question.session_id and question.history:
        raise InvalidRequest(
            "session_id and history are both set; send only one, a session stores its own turns",
            field="history",
        )
    if question.session_version and not question.session_id:
        raise InvalidRequest(
            "session_version is set without session_id; send both or neither",
            field="session_version",
        )
    if len(question.history) > c.MAX_HISTORY_TURNS:
        raise InvalidRequest(
            f"history has {len(question.history)} turns; at most {c.MAX_HISTORY_TURNS} are allowed",
            field="history",
        )
    for at, turn in enumerate(question.history):
        _check_text(f"history[{at}].question", turn.question)
        if len(turn.answer) > c.MAX_QUERY_CHARACTERS:
            raise InvalidRequest(
                f"history[{at}].answer has {len(turn.answer):,} characters; at most "
                f"{c.MAX_QUERY_CHARACTERS:,} are allowed",
                field=f"history[{at}].answer",
            )
        if turn.condensed:
            _check_text(f"history[{at}].condensed", turn.condensed)


def _check_text(field: str, text: str) -> None:
    if not text.strip():
        raise InvalidRequest(f"{field} is empty; send a question", field=field)
    if len(text) > c.MAX_QUERY_CHARACTERS:
        raise InvalidRequest(
            f"{field} has {len(text):,} characters; at most {c.MAX_QUERY_CHARACTERS:,} are allowed",
            field=field,
        )
