"""Tests which questions refer to something that no earlier turn names."""

from __future__ import annotations

import pytest

from generation.memory.query_rewriter import unresolved_reference
from nearline.contract import Turn

# Question, and the words that refer to nothing.
UNCLEAR = [
    ("And how large is it?", "it"),
    ("how do I descale it?", "it"),
    ("When was he born?", "he"),
    ("Which of them have rings?", "them"),
    ("Thanks! What else?", "What else"),
    ("and the second one?", "second one"),
    ("What is this?", "this"),
    ("Why?", "Why"),
    ("And in winter?", "And in winter"),
    ("what about logging?", "what about logging"),
]
CLEAR = [
    "How large is the moon?",
    "kettle",
    "Is it safe to descale the kettle?",
    "How long does it take to boil water?",
    # A name, or enough other words, can be searched for.
    "Who was predicted by Jesus to betray him?",
    "How did Disney downsize its management?",
    "Which band released its first album in May 1970?",
    "What about Germany?",
    # The collection is at hand.
    "What does this collection contain?",
    "what are these documents about?",
    # Already completed; properties of everything; other languages.
    "how do I stop it (thread)?",
    "What is the default?",
    "tell me more",
    "Wie groß ist er?",
    "它多大？",
    "",
]


@pytest.mark.parametrize(("question", "words"), UNCLEAR)
def test_a_first_question_that_refers_is_unclear(question: str, words: str) -> None:
    assert unresolved_reference(question, []) == words


@pytest.mark.parametrize("question", CLEAR)
def test_a_question_that_names_its_subject_is_clear(question: str) -> None:
    assert unresolved_reference(question, []) == ""


def test_earlier_turns_name_the_subject_unless_they_are_unclear_themselves() -> None:
    how_large = "And how large is it?"
    assert unresolved_reference(how_large, [Turn("What is the moon?", "A satellite.")]) == ""
    assert unresolved_reference(how_large, [Turn("Where is it?", "")]) == "it"
    assert (
        unresolved_reference(how_large, [Turn("Where is it?", "In Italy.", "Where is Rome?")]) == ""
    )
    assert unresolved_reference("the kettle", [Turn(how_large, "")]) == ""
