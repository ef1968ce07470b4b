"""Tests which kind of answer is asked for, and what a sentence holds of it."""

from __future__ import annotations

import math
import time

import pytest

from generation.evidence.answer_kinds import (
    asked_kind,
    asked_names,
    asks_method,
    holds_kind,
    lacks_names,
)


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("How much does the kettle cost?", "money"),
        ("What is the fine for parking here?", "money"),
        ("How much water does the kettle hold?", "number"),
        ("At what time does the shop open?", "clock"),
        ("In what time period was it built?", ""),
        ("How old is the bridge?", "age"),
        ("How long is the cable?", "duration or length"),
        ("How high is the tower?", "size"),
        ("How much does the lamp weigh?", "weight"),
        ("How hot does the oven get?", "temperature"),
        ("How often do trams leave?", "frequency"),
        ("How many people work there?", "number"),
        ("When was the pier built?", "date"),
        ("In which year did she die?", "date"),
        ("When the water is hot, what does the lamp do?", ""),
        ("Who designed the lamp?", "person"),
        ("Where does the newt live?", "place"),
        ("Why did the boat sink?", ""),
        ("", ""),
    ],
)
def test_the_words_of_a_question_say_what_it_asks_for(question: str, kind: str) -> None:
    assert asked_kind(question) == kind


@pytest.mark.parametrize(
    ("question", "method"),
    [
        ("how do I run a subprocess with a timeout?", True),
        ("And how can we measure how long it takes?", True),
        ("How to remove limescale?", True),
        ("What is the best way to split a path?", True),
        ("What must I do to become a member?", True),
        ("How do newts breathe?", False),
        ("How many people can we invite?", False),
        ("What do I owe?", False),
        ("", False),
    ],
)
def test_a_question_asks_how_to_do_something_or_not(question: str, method: bool) -> None:
    assert asks_method(question) == method


def test_a_question_how_to_measure_a_length_asks_for_no_length() -> None:
    assert asked_kind("How can I measure how long a program runs?") == ""


@pytest.mark.parametrize(
    ("question", "sentence", "held"),
    [
        ("At what time does the shop open?", "The shop is open on Fridays.", 0.0),
        ("At what time does the shop open?", "The shop opens at 7:30.", 1.0),
        ("How much does the kettle cost?", "The kettle holds 1.7 litres.", 0.0),
        ("How much does the kettle cost?", "It is sold for 40 euros.", 1.0),
        ("How heavy is it?", "It is 30 centimetres high.", 0.0),
        ("How heavy is it?", "It weighs two and a half kilograms.", 1.0),
        ("When was the pier built?", "The pier is of oak.", 0.0),
        ("When was the pier built?", "It was built in 1871.", 1.0),
        # The question's own year is no answer.
        ("How many people came in 1936?", "In 1936 it rained.", 0.0),
        ("Who won in Leuven?", "It was in Leuven.", 0.0),
        ("Who won in Leuven?", "It was won by Jens Thorup.", 1.0),
    ],
)
def test_a_sentence_holds_what_is_asked_for_or_not(
    question: str, sentence: str, held: float
) -> None:
    assert holds_kind(question, sentence) == held


def test_an_unknown_kind_is_not_a_number() -> None:
    assert math.isnan(holds_kind("Why did it sink?", "Because it leaked."))


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


@pytest.mark.parametrize("text", ["1" * 20_000, "A" * 20_000, "1 a" * 7_000, "A a " * 5_000])
def test_long_sentences_are_read_in_linear_time(text: str) -> None:
    began = time.perf_counter()
    for question in (
        "How long is it?",
        "Who made it?",
        "How much does it cost?",
        "How high is it?",
    ):
        holds_kind(question, text)
    assert time.perf_counter() - began < 2.0


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
