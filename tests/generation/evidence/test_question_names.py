"""Names, numbers and identifiers of a question, and whether a text has them."""

from __future__ import annotations

import time

import pytest

from generation.evidence.question_names import (
    asked_identifiers,
    asked_names,
    lacks_identifiers,
    lacks_names,
)


def test_names_are_capitalised_words_after_the_first_and_words_with_digits() -> None:
    assert asked_names("Who won Super Bowl 54 on Anna's XR-200?") == {
        "super",
        "bowl",
        "54",
        "anna",
        "xr-200",
    }
    assert asked_names("Who won?") == frozenset()


def test_the_share_of_missing_names_counts_each_once() -> None:
    names = asked_names("Who won Super Bowl 54?")
    assert lacks_names(names, "The Broncos won Super Bowl 50.") == pytest.approx(1 / 3)
    assert lacks_names(names, "SUPER BOWL 54's winner") == 0.0
    assert lacks_names(frozenset(), "anything") == 0.0


@pytest.mark.parametrize(
    "question", ["How many keys do I get?", "May I go if I'm ill?", "What if I\u2019ve lost it?"]
)
def test_the_one_who_asks_is_no_name(question: str) -> None:
    assert asked_names(question) == frozenset()


def test_a_name_is_found_with_either_apostrophe() -> None:
    names = asked_names("When was Brian O\u2019Neill born?")
    assert lacks_names(names, "Brian O\u2019Neill was born in 1980.") == 0.0
    assert lacks_names(names, "Brian O'Neill's birthday is in May.") == 0.0
    assert lacks_names(names, "Brian Neill was born in 1980.") == 0.5


@pytest.mark.parametrize(
    ("question", "identifiers"),
    [
        ("what is the default of upload_limit?", {"upload_limit"}),
        ("What does --dry-run do?", {"--dry-run"}),
        ("how do I set maxSize in app.toml", {"maxsize", "app.toml"}),
        ("Is it done? No.", set()),
        ("Can I pay, e.g. by card, at 9 a.m. in the U.S.?", set()),
    ],
)
def test_identifiers_are_options_and_words_of_code(question: str, identifiers: set[str]) -> None:
    assert asked_identifiers(question) == identifiers


def test_a_text_lacks_identifiers_that_do_not_occur_in_it() -> None:
    asked = asked_identifiers("what is the default of upload_limit?")
    assert lacks_identifiers(asked, "Upload_Limit: 25 MB") == 0.0
    assert lacks_identifiers(asked, "idle_timeout: 90 s") == 1.0
    assert lacks_identifiers(frozenset(), "anything") == 0.0


@pytest.mark.parametrize("text", ["a" * 50_000, "a_" * 25_000, "-a " * 17_000, "aB" * 25_000])
def test_long_questions_are_read_in_linear_time(text: str) -> None:
    began = time.perf_counter()
    asked_identifiers(text)
    asked_names(text)
    assert time.perf_counter() - began < 2.0


def test_a_question_in_capitals_has_no_names_but_its_numbers() -> None:
    assert asked_names("DOES IT OPEN ON MONDAY 4 MAY?") == {"4"}
    assert asked_names("Does it open on Monday 4 May?") == {"monday", "4", "may"}
